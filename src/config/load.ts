/** Loads a configuration file: the result is a {@link Config}, or a {@link ConfigError} with all mistakes at once. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
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

export interface LoadOptions {
  /** The YAML file; `undefined` means the built-in defaults. */
  file?: string | undefined;
  /** The folder that `file` and the relative paths in it start from. */
  cwd: string;
  /** If given, the environment variables and files that the configuration names are checked, too. */
  environment?: Environment;
  /** Called for what can be used, but lets in more than was meant, or less. In the order of the file. */
  warn?: (warning: ConfigProblem) => void;
}

/** @throws {ConfigError} the file cannot be read, or it has mistakes */
export async function loadConfig({ file, cwd, environment, warn }: LoadOptions): Promise<Config> {
  const source = new YamlSource(file === undefined ? '' : await readConfigFile(file, cwd));
  const problemAt = (position: { line: number; col: number }, path: Issue['path'], message: string) => ({
    file: file ?? 'built-in defaults',
    line: position.line,
    col: position.col,
    path: formatPath(path),
    message,
  });
  const problems = source.problems.map(({ message, ...position }) => problemAt(position, [], message));
  if (source.data === undefined) throw new ConfigError('syntax', problems.sort(byPosition));

  const data = withPresets(source.data);
  makePathsAbsolute(data, cwd);
  const parsed = configSchema.safeParse(data);
  const issues = parsed.success ? [] : schemaIssues(configSchema, parsed.error);
  const others = nameIssues(data);
  if (environment !== undefined) others.push(...(await referenceIssues(data, environment)));
  // Reports a value that the schema refuses only once: other mistakes at the same place follow from that.
  const misshapen = new Set(issues.map(({ path }) => formatPath(path)));
  issues.push(...others.filter(({ path }) => !misshapen.has(formatPath(path))));

  const placed = ({ path, part, message }: Issue) => problemAt(source.locate(path, part), path, message);
  problems.push(...issues.map(placed));
  if (parsed.success) {
    const { errors, warnings } = await relatedIssues(parsed.data);
    problems.push(...errors.map(placed));
    if (problems.length === 0 && warn !== undefined) warnings.map(placed).sort(byPosition).forEach(warn);
  }
  if (!parsed.success || problems.length > 0) throw new ConfigError('invalid', problems.sort(byPosition));
  const { cache } = parsed.data;
  return { ...parsed.data, cache: { ...cache, directory: resolve(cwd, cache.directory) } };
}

/** Mistakes of keys that need each other. */
async function relatedIssues(config: Config): Promise<{ errors: Issue[]; warnings: Issue[] }> {
  const errors = listenerIssues(config);
  if (config.access === undefined) return { errors, warnings: [] };
  // Loaded only where there is access control.
  const ofAccess = (await import('./access-issues.ts')).accessIssues(config);
  return { errors: [...errors, ...ofAccess.errors], warnings: ofAccess.warnings };
}

async function readConfigFile(file: string, cwd: string): Promise<string> {
  try {
    return await readFile(resolve(cwd, file), 'utf8');
  } catch (error) {
    const message = `configuration file cannot be read: ${whyUnreadable(error).reason}`;
    throw new ConfigError('unreadable', [{ file, line: 1, col: 1, path: '', message }], error);
  }
}

function byPosition(a: ConfigProblem, b: ConfigProblem): number {
  return a.line - b.line || a.col - b.col;
}
