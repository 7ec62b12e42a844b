/** A configuration file becomes a {@link Config}, or a {@link ConfigError} with everything that is wrong with it. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as z from 'zod';
import { ConfigError, type ConfigProblem } from './errors.ts';
import { YamlSource } from './file/source.ts';
import { nearest } from './file/suggest.ts';
import { type Issue, makePathsAbsolute, nameIssues, referenceIssues, withPresets } from './raw.ts';
import { type Config, configSchema } from './schema.ts';
import { type Environment, whyUnreadable } from './secrets.ts';

export interface LoadOptions {
  /** The YAML file; without one, the built-in defaults. */
  file?: string | undefined;
  /** Folder that relative paths start from, `file` and those in it. */
  cwd: string;
  /** When given, the environment variables and files that the configuration names are checked too. */
  environment?: Environment;
}

/** @throws {ConfigError} */
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
  const issues = parsed.success ? [] : parsed.error.issues.flatMap((issue) => readIssue(issue));
  const others = nameIssues(data);
  if (environment !== undefined) others.push(...(await referenceIssues(data, environment)));
  // What has the wrong shape is told once: what else is wrong with it follows from that.
  const misshapen = new Set(issues.map(({ path }) => formatPath(path)));
  issues.push(...others.filter(({ path }) => !misshapen.has(formatPath(path))));

  problems.push(
    ...issues.map(({ path, part, message }) => problemAt(source.locate(path, part), path, message)),
  );
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

/** What zod found, by its place in the whole of the data; `above` is the place of the value that it looked at. */
function readIssue(issue: z.core.$ZodIssue, above: Issue['path'] = []): Issue[] {
  const path = [...above, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: [...path, key], part: 'key', message: unknownKey(key, path) }));
  }
  if (issue.code === 'invalid_key') {
    return [{ path, part: 'key', message: issue.issues[0]?.message ?? issue.message }];
  }
  if (issue.code === 'invalid_union') {
    const [meant] = issue.errors
      .filter((branch) => !branch.some(isOfAnotherType))
      .toSorted((a, b) => unknownKeysOf(a) - unknownKeysOf(b));
    if (meant !== undefined) return meant.flatMap((inner) => readIssue(inner, path));
  }
  return [{ path, part: 'value', message: issue.message }];
}

/** The fewer there are, the more a union's branch is likely to be the one that was meant. */
function unknownKeysOf(branch: readonly z.core.$ZodIssue[]): number {
  return branch.reduce((sum, one) => sum + (one.code === 'unrecognized_keys' ? one.keys.length : 0), 0);
}

/** Whether a union's branch was not meant at all, rather than meant and got wrong inside. */
function isOfAnotherType({ code, path }: z.core.$ZodIssue): boolean {
  return path.length === 0 && (code === 'invalid_type' || code === 'invalid_value');
}

function unknownKey(key: string, path: Issue['path']): string {
  const known = knownKeys(path);
  if (known.includes(key)) return 'does not go together with the other keys here: give one kind only';
  const suggestion = nearest(key, known);
  return suggestion === undefined
    ? `unknown key; known here: ${known.join(', ')}`
    : `unknown key; did you mean ${suggestion}?`;
}

/** The part of JSON Schema that says which keys there are. */
interface KeySchema {
  properties?: Record<string, KeySchema>;
  additionalProperties?: KeySchema | false;
  anyOf?: KeySchema[];
}

function knownKeys(path: Issue['path']): string[] {
  let schemas = [z.toJSONSchema(configSchema, { io: 'input' }) as KeySchema];
  for (const step of path) {
    schemas = schemas
      .map(
        ({ properties, additionalProperties }) => properties?.[String(step)] ?? (additionalProperties || {}),
      )
      .flatMap((schema) => schema.anyOf ?? [schema]);
  }
  return schemas.flatMap(({ properties }) => Object.keys(properties ?? {}));
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
