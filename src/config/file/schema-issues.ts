/** Turns the findings of zod into messages about keys and values of the file. */
import type * as z from 'zod';
import { keySchemaOf } from './key-schema.ts';
import type { Issue } from './raw.ts';
import { nearest } from './suggest.ts';

/** The mistakes in data that `schema` has refused. */
export function schemaIssues(schema: z.ZodType, { issues }: z.ZodError): Issue[] {
  return issues.flatMap((issue) => readIssue(schema, issue, []));
}

/** @param above the place of the value that zod looked at: the paths in a branch of a union start there */
function readIssue(schema: z.ZodType, issue: z.core.$ZodIssue, above: Issue['path']): Issue[] {
  const path = [...above, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schema, path);
    return issue.keys.map((key) => ({ path: [...path, key], part: 'key', message: unknownKey(key, known) }));
  }
  if (issue.code === 'invalid_key') {
    return [{ path, part: 'key', message: issue.issues[0]?.message ?? issue.message }];
  }
  if (issue.code === 'invalid_union') {
    const [meant] = issue.errors
      .filter((branch) => !branch.some(isOfAnotherType))
      .toSorted((a, b) => unknownKeysOf(a) - unknownKeysOf(b));
    if (meant !== undefined) return meant.flatMap((inner) => readIssue(schema, inner, path));
  }
  return [{ path, part: 'value', message: issue.message }];
}

/** Counts the unknown keys in a branch of a union: the branch with the fewest is most likely the one that was meant. */
function unknownKeysOf(branch: readonly z.core.$ZodIssue[]): number {
  return branch.reduce((sum, one) => sum + (one.code === 'unrecognized_keys' ? one.keys.length : 0), 0);
}

/** Whether the value is of another type than a branch of a union, so that the branch was not meant. */
function isOfAnotherType({ code, path }: z.core.$ZodIssue): boolean {
  return path.length === 0 && (code === 'invalid_type' || code === 'invalid_value');
}

function unknownKey(key: string, known: readonly string[]): string {
  if (known.includes(key))
    return 'cannot be combined with the other keys here: keep one kind, remove the rest';
  const suggestion = nearest(key, known);
  return suggestion === undefined
    ? `unknown key; possible here: ${known.join(', ')}`
    : `unknown key; did you mean ${suggestion}?`;
}

function knownKeys(schema: z.ZodType, path: Issue['path']): string[] {
  let schemas = [keySchemaOf(schema)];
  for (const step of path) {
    schemas = schemas
      .map(
        ({ properties, additionalProperties, items }) =>
          items ?? properties?.[String(step)] ?? (additionalProperties || {}),
      )
      .flatMap((schema) => schema.anyOf ?? [schema]);
  }
  return schemas.flatMap(({ properties }) => Object.keys(properties ?? {}));
}
