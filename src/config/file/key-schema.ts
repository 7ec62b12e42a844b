/** The keys of a schema, and the types of their values, by its JSON Schema. */
import * as z from 'zod';

/** The part of JSON Schema that says which keys there are. */
export interface KeySchema {
  /** Left out where a value may have one of several types: then there is `anyOf`. */
  type?: string;
  properties?: Record<string, KeySchema>;
  additionalProperties?: KeySchema | false;
  items?: KeySchema;
  anyOf?: KeySchema[];
}

const known = new WeakMap<z.ZodType, KeySchema>();

/**
 * The first call for the whole configuration takes some 25 ms and 3 MB: only for what is not part of every start. Keeps
 * the result, because each reload may ask again.
 */
export function keySchemaOf(schema: z.ZodType): KeySchema {
  const before = known.get(schema);
  if (before !== undefined) return before;
  const made = z.toJSONSchema(schema, { io: 'input' }) as KeySchema;
  known.set(schema, made);
  return made;
}
