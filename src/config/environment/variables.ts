/**
 * The variable of each key: `MILLPOND_` and the path of the key, in capitals and with `_` between the words.
 *
 * A key has a variable if it has one value and every step to it has a fixed name. A list has none: no text could tell a
 * list from its items in the same way for all of them. Nor has what lies in a list, or in a map whose keys the user
 * chooses (`upstreams`): a host such as `docker.io` is no part of a name.
 */
import type * as z from 'zod';
import { type KeySchema, keySchemaOf } from '../file/key-schema.ts';
import { PREFIX } from './names.ts';

export interface Variable {
  name: string;
  path: readonly string[];
  kind: 'text' | 'number' | 'flag' | 'section' | 'list' | 'map';
}

/** All keys with the variables that they have, or would have: only `text`, `number` and `flag` can be set. */
export function variablesOf(schema: z.ZodType): Variable[] {
  return walk(keySchemaOf(schema), []);
}

function walk({ properties = {} }: KeySchema, above: readonly string[]): Variable[] {
  return Object.entries(properties).flatMap(([key, value]) => {
    const path = [...above, key];
    return [{ name: nameOf(path), path, kind: kindOf(value) }, ...walk(value, path)];
  });
}

function nameOf(path: readonly string[]): string {
  const words = path.map((key) => key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase());
  return `${PREFIX}${words.join('_')}`;
}

function kindOf({ type, properties, anyOf }: KeySchema): Variable['kind'] {
  if (anyOf !== undefined) return anyOf.some((one) => kindOf(one) === 'text') ? 'text' : 'map';
  if (type === 'boolean') return 'flag';
  if (type === 'number' || type === 'integer') return 'number';
  if (type === 'array') return 'list';
  if (type === 'object') return properties === undefined ? 'map' : 'section';
  return 'text';
}
