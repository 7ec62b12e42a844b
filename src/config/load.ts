/** Loads a configuration file: the result is a {@link Config}, or a {@link ConfigError} with all mistakes at once. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { ConfigError, type ConfigProblem } from './errors.ts';
import { nameIssues } from './file/names.ts';
import { withPresets } from './file/presets.ts';
import type { Issue } from './file/raw.ts';
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
}

/** @throws {ConfigError} the file cannot be read, or it has mistakes */
export async function loadConfig({ file, cwd, environment }: LoadOptions): Promise<Config> {
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

  problems.push(
    ...issues.map(({ path, part, message }) => problemAt(source.locate(path, part), path, message)),
  );
  if (parsed.success) {
    const related = listenerIssues(parsed.data);
    // Loaded only where there is access control.
    if (parsed.data.access !== undefined)
      related.push(...(await import('./access-issues.ts')).accessIssues(parsed.data).errors);
    problems.push(
      ...related.map(({ path, part, message }) => problemAt(source.locate(path, part), path, message)),
    );
  }
  if (!parsed.success || problems.length > 0) throw new ConfigError('invalid', problems.sort(byPosition));
  const { cache } = parsed.data;
  return { ...parsed.data, cache: { ...cache, directory: resolve(cwd, cache.directory) } };
}

async function readConfigFile(file: string, cwd: string): Promise<string> {
  try {
    return await readFile(resolve(cwd, file), 'utf8');
  } catch (error) {
    const message = `configuration file cannot be read: ${whyUnreadable(error).reason}`;
    throw new ConfigError('unreadable', [{ file, line: 1, col: 1, path: '', message }], error);
  }
}

function formatPath(path: Issue['path']): string {
  return path.reduce<string>(
    (text, step) =>
      text + (typeof step === 'number' ? `[${step}]` : `${text === '' ? '' : '.'}${String(step)}`),
    '',
  );
}

function byPosition(a: ConfigProblem, b: ConfigProblem): number {
  return a.line - b.line || a.col - b.col;
}
