/** Values that YAML can hold as they are, and what holds others. */
import * as z from 'zod';
import { shown, wrongType } from './codec.ts';

export function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, { error: wrongType(`one of ${values.join(', ')}`) });
}

export function flag() {
  return z.boolean({ error: wrongType('true or false') });
}

/** A whole number from 0. */
export function amount() {
  const error = wrongType('a whole number from 0');
  return z.int({ error }).min(0, { error });
}

/** A whole number from 1. */
export function count() {
  const error = wrongType('a whole number from 1');
  return z.int({ error }).min(1, { error });
}

/** A number above 0 and up to 1. */
export function share() {
  const error = wrongType('a number above 0 and up to 1');
  return z.number({ error }).gt(0, { error }).lte(1, { error });
}

export function pattern() {
  return z.codec(z.string({ error: wrongType('a regular expression') }), z.custom<RegExp>(), {
    decode: (source, context) => {
      try {
        return new RegExp(source);
      } catch (error) {
        const message = error instanceof Error ? error.message.replace(/^.*: /, '').toLowerCase() : '';
        context.issues.push({
          code: 'custom',
          input: source,
          message: `must be a regular expression, got ${shown(source)}: ${message}`,
        });
        return z.NEVER;
      }
    },
    encode: (regExp) => regExp.source,
  });
}

/** A map of the given fields and no others. */
export function section<T extends z.core.$ZodShape>(fields: T) {
  return z.strictObject(fields, { error: wrongType('a map of settings') });
}

export function list<T extends z.ZodType>(item: T) {
  return z.array(item, { error: wrongType('a list') });
}
