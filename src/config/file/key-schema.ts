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

/** Takes some 25 ms for the whole configuration: only for what is not part of every start. */
export function keySchemaOf(schema: z.ZodType): KeySchema {
  return z.toJSONSchema(schema, { io: 'input' }) as KeySchema;
}
