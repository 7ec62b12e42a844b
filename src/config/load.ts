/** Loads a configuration: the result is a {@link Config}, or a {@link ConfigError} with all mistakes at once. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { settingsIn } from './environment/names.ts';
import { ConfigError, type ConfigProblem } from './errors.ts';
import { nameIssues } from './file/names.ts';
import { withPresets } from './file/presets.ts';
import { formatPath, type Issue } from './file/raw.ts';
import { schemaIssues } from './file/schema-issues.ts';
import { YamlSource } from './file/source.ts';
import { listenerIssues } from './listener-issues.ts';
import { makePathsAbsolute, referenceIssues } from './references.ts';
import { type Config, configSchema } from './schema.ts';
import { type Environment, whyUnreadable } from './secrets.ts';
import { ConfigSources } from './sources.ts';

export interface LoadOptions {
  /** The YAML file; `undefined` means the built-in defaults. */
  file?: string | undefined;
  /** The folder that relative paths start from, and `file` too. */
  cwd: string;
  /** Its variables `MILLPOND_…` come before the file. The variables and files that the configuration names are checked. */
  environment?: Environment;
  /** True: does not check what the configuration names. For commands that need none of it. */
  ignoreReferences?: boolean;
}

export interface LoadedConfig {
  config: Config;
  sources: ConfigSources;
  /** What the config was made of, with absolute paths, but for that of the cache directory. */
  data: unknown;
}

/** @throws {ConfigError} the file cannot be read, or there are mistakes in it or in variables */
export async function loadConfig(options: LoadOptions): Promise<Config> {
  return (await loadWithSources(options)).config;
}

/** As {@link loadConfig}, for those who must say where a value comes from. @throws {ConfigError} */
export async function loadWithSources(options: LoadOptions): Promise<LoadedConfig> {
  const { cwd, environment } = options;
  const { data, sources } = await read(options);
  makePathsAbsolute(data, cwd);
  const parsed = configSchema.safeParse(data);
  const issues = parsed.success ? [] : schemaIssues(configSchema, parsed.error);
  const others = nameIssues(data);
  if (environment !== undefined && options.ignoreReferences !== true)
    others.push(...(await referenceIssues(data, environment)));
  // Reports a value that the schema refuses only once: other mistakes at the same place follow from that.
  const misshapen = new Set(issues.map(({ path }) => formatPath(path)));
  issues.push(...others.filter(({ path }) => !misshapen.has(formatPath(path))));
  if (parsed.success) issues.push(...(await relatedIssues(parsed.data, sources)));

  const problems = [...sources.problems, ...issues.map((issue) => sources.problem(issue))];
  if (!parsed.success || problems.length > 0) throw new ConfigError('invalid', problems.sort(byPosition));
  const { cache } = parsed.data;
  const config = { ...parsed.data, cache: { ...cache, directory: resolve(cwd, cache.directory) } };
  return { config, sources, data };
}

/** The data of file and variables. @throws {ConfigError} */
async function read({ file, cwd, environment }: LoadOptions): Promise<Omit<LoadedConfig, 'config'>> {
  const yaml = new YamlSource(file === undefined ? '' : await readConfigFile(file, cwd));
  if (yaml.data === undefined)
    throw new ConfigError('syntax', new ConfigSources(file, yaml, undefined).problems.sort(byPosition));
  const ofFile = withPresets(yaml.data);
  const settings = settingsIn(environment ?? {});
  if (settings.length === 0) return { data: ofFile, sources: new ConfigSources(file, yaml, undefined) };
  // Loaded only where there are such variables: most servers have none.
  const { override } = await import('./environment/overrides.ts');
  const overrides = override(ofFile, settings, configSchema);
  return { data: overrides.data, sources: new ConfigSources(file, yaml, overrides) };
}

/** Mistakes of keys that need each other. */
async function relatedIssues(config: Config, sources: ConfigSources): Promise<Issue[]> {
  const issues = listenerIssues(config, (path) => sources.isWritten(path));
  // Loaded only where they are configured.
  if (config.access !== undefined)
    issues.push(...(await import('./access-issues.ts')).accessIssues(config).errors);
  if (config.policies.length > 0) issues.push(...(await import('./policy-issues.ts')).policyIssues(config));
  return issues;
}

async function readConfigFile(file: string, cwd: string): Promise<string> {
  try {
    return await readFile(resolve(cwd, file), 'utf8');
  } catch (error) {
    const message = `configuration file cannot be read: ${whyUnreadable(error).reason}`;
    throw new ConfigError('unreadable', [{ file, line: 1, col: 1, path: '', message }], error);
  }
}

/** In the order of the file, after the environment. */
export function byPosition(a: ConfigProblem, b: ConfigProblem): number {
  return a.line - b.line || a.col - b.col;
}
