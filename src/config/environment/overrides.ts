/** Puts the values of variables into the data of a configuration. Loaded only where there is such a variable. */
import type * as z from 'zod';
import { formatPath, isRaw } from '../file/raw.ts';
import { nearest } from '../file/suggest.ts';
import { PREFIX } from './names.ts';
import { type Variable, variablesOf } from './variables.ts';

export interface Overrides {
  /** The data of the file with the values of the variables in it. Does not share what it changes. */
  data: unknown;
  /** Variables that mean no key. */
  problems: { name: string; message: string }[];
  /** The variables that are set, by the paths of their keys. */
  nameByPath: ReadonlyMap<string, string>;
  /** The variables of all keys, set or not, by the paths of their keys. */
  knownByPath: ReadonlyMap<string, string>;
}

/** @param settings names and values */
export function override(
  data: unknown,
  settings: readonly (readonly [string, string])[],
  schema: z.ZodType,
): Overrides {
  const variables = variablesOf(schema);
  const settable = variables.filter(isSettable);
  const nameByPath = new Map<string, string>();
  const problems: Overrides['problems'] = [];
  let filled = data;
  for (const [name, text] of settings) {
    const variable = settable.find((each) => each.name === name);
    if (variable === undefined) problems.push({ name, message: whyUnknown(name, variables) });
    else {
      filled = withValue(filled, variable.path, read(text, variable.kind));
      nameByPath.set(formatPath(variable.path), name);
    }
  }
  const knownByPath = new Map(settable.map(({ path, name }) => [formatPath(path), name]));
  return { data: filled, problems, nameByPath, knownByPath };
}

function isSettable({ kind }: Variable): boolean {
  return kind === 'text' || kind === 'number' || kind === 'flag';
}

/** Leaves to the schema, as text, what is neither a number nor a flag: it says what the key must be. */
function read(text: string, kind: Variable['kind']): unknown {
  if (kind === 'flag' && (text === 'true' || text === 'false')) return text === 'true';
  if (kind === 'number' && /^-?\d+(?:\.\d+)?$/.test(text)) return Number(text);
  return text;
}

/** Copies what it changes: two sections of the file may be one object, by an anchor and an alias. */
function withValue(data: unknown, [key, ...rest]: readonly string[], value: unknown): unknown {
  if (key === undefined) return value;
  // Leaves a section that is no map as it is: the schema reports it, at its line.
  if (!isRaw(data ?? {})) return data;
  const map = isRaw(data) ? data : {};
  return { ...map, [key]: withValue(map[key], rest, value) };
}

function whyUnknown(name: string, variables: readonly Variable[]): string {
  const inFile = 'has no variable: set it in the configuration file';
  const exact = variables.find((each) => each.name === name);
  if (exact?.kind === 'section')
    return `means no key: ${formatPath(exact.path)} is a section, name a key in it`;
  if (exact !== undefined) return `${formatPath(exact.path)} is a ${exact.kind}, and ${inFile}`;
  const above = variables.find(
    (each) => (each.kind === 'list' || each.kind === 'map') && name.startsWith(`${each.name}_`),
  );
  if (above !== undefined) return `what is in ${formatPath(above.path)} ${inFile}`;
  const names = variables.filter(isSettable).map((each) => each.name.slice(PREFIX.length));
  const suggestion = nearest(name.slice(PREFIX.length), names);
  return suggestion === undefined
    ? `means no key: a variable is ${PREFIX} and the path of a key, such as ${PREFIX}CACHE_MAX_SIZE for cache.maxSize`
    : `means no key; did you mean ${PREFIX}${suggestion}?`;
}
