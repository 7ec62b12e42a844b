/** Checks a configuration as `config check` does: beyond its mistakes, what was probably not meant. */
import { ConfigError, type ConfigProblem } from '../errors.ts';
import { type Issue, isRaw } from '../file/raw.ts';
import { nearest } from '../file/suggest.ts';
import { byPosition, type LoadedConfig, type LoadOptions, loadWithSources } from '../load.ts';
import { allowedIn } from './allowed.ts';
import { cacheWarnings, secretWarnings } from './file-system-warnings.ts';
import { accessWarnings, upstreamWarnings } from './upstream-warnings.ts';
import { valueWarnings } from './value-warnings.ts';
import { WARNING_NAMES, type Warning, type WarningName, warning } from './warning.ts';

interface PlacedWarning extends ConfigProblem {
  name: WarningName;
}

export interface CheckedConfig extends LoadedConfig {
  /** In the order of the file, without those that a comment in it allows. */
  warnings: PlacedWarning[];
}

/**
 * @param whyUnusable says why a folder cannot be the cache directory, if it cannot
 * @throws {ConfigError} the configuration cannot be used
 */
export async function checkConfig(
  options: LoadOptions,
  whyUnusable: (directory: string) => Promise<string | undefined>,
): Promise<CheckedConfig> {
  const loaded = await loadWithSources(options);
  const { config, sources } = loaded;
  const message = await whyUnusable(config.cache.directory);
  if (message !== undefined) {
    const issue: Issue = { path: ['cache', 'directory'], part: 'value', message };
    throw new ConfigError('invalid', [sources.problem(issue)]);
  }
  const allowed = allowedIn(sources.yaml.text);
  const placed: PlacedWarning[] = [
    ...(await warningsOf(loaded)).map(({ name, issue }) => ({ ...sources.problem(issue), name })),
    ...allowed
      .filter(({ name }) => !isWarningName(name))
      .map(({ name, line, col }) => ({
        ...{ file: sources.name, line, col, path: '', name: 'unknown-warning' as const },
        message: unknownWarning(name),
      })),
  ];
  const silenced = new Set(allowed.map(({ name }) => name));
  return { ...loaded, warnings: placed.filter(({ name }) => !silenced.has(name)).sort(byPosition) };
}

async function warningsOf({ config, data, sources }: LoadedConfig): Promise<Warning[]> {
  const cache: unknown = isRaw(data) ? data['cache'] : undefined;
  const directory: unknown = isRaw(cache) ? cache['directory'] : undefined;
  return [
    ...valueWarnings(config, typeof directory === 'string' ? directory : undefined),
    ...upstreamWarnings(config),
    ...accessWarnings(config),
    ...(await ruleWarnings(config)),
    ...(await cacheWarnings(config, (path) => sources.isWritten(path))),
    ...(await secretWarnings(data)),
  ];
}

async function ruleWarnings(config: LoadedConfig['config']): Promise<Warning[]> {
  if (config.access === undefined) return [];
  const { accessIssues } = await import('../access-issues.ts');
  return accessIssues(config).warnings.map(({ path, message }) => warning('doubtful-rule', path, message));
}

function isWarningName(name: string): name is WarningName {
  return WARNING_NAMES.some((known) => known === name);
}

function unknownWarning(name: string): string {
  const suggestion = nearest(name, WARNING_NAMES);
  const hint =
    suggestion === undefined ? `there are: ${WARNING_NAMES.join(', ')}` : `did you mean ${suggestion}?`;
  return `no warning is called ${JSON.stringify(name)}; ${hint}`;
}
