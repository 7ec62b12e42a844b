/** Values that YAML writes as they are, and the maps and lists that hold them. */
import * as z from 'zod';
import { shown, written, wrongType } from './codec.ts';

export function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, { error: wrongType(`one of ${values.join(', ')}`) });
}

export function flag() {
  return z.boolean({ error: wrongType('true or false') });
}

/** The mode of a file: three or four octal digits. YAML reads them as a number unless they are quoted. */
export function fileMode() {
  const what = "the mode of a file in quotes, such as '0660'";
  return written(
    what,
    (digits) => (/^0?[0-7]{3}$/.test(digits) ? Number.parseInt(digits, 8) : undefined),
    (mode) => mode.toString(8).padStart(4, '0'),
    z.number(),
  );
}

/** A whole number, 0 or more. */
export function amount() {
  const error = wrongType('a whole number, 0 or more');
  return z.int({ error }).min(0, { error });
}

/** A whole number, 1 or more. */
export function count() {
  const error = wrongType('a whole number, 1 or more');
  return z.int({ error }).min(1, { error });
}

/** A number above 0 and at most 1. */
export function share() {
  const error = wrongType('a number above 0 and at most 1, such as 0.9');
  return z.number({ error }).gt(0, { error }).lte(1, { error });
}

/** A group of this machine by name or number. `none` is `null`. */
export function group() {
  const error = wrongType('none, or the name or number of a group, such as nginx or 101');
  const number = z.int({ error }).min(0, { error });
  const name = z.string({ error }).regex(/^[^\s:,]+$/, { error });
  return z.codec(z.union([number, name], { error }), z.custom<string | number | null>(), {
    decode: (written) =>
      written === 'none' ? null : /^\d+$/.test(String(written)) ? Number(written) : written,
    encode: (group) => group ?? 'none',
  });
}

/** A regular expression in the syntax of JavaScript. */
export function pattern() {
  return z.codec(z.string({ error: wrongType('a regular expression') }), z.custom<RegExp>(), {
    decode: (source, context) => {
      try {
        return new RegExp(source);
      } catch (error) {
        const reason = error instanceof Error ? error.message.replace(/^.*: /, '').toLowerCase() : '';
        context.issues.push({
          code: 'custom',
          input: source,
          message: `must be a regular expression, got ${shown(source)}: ${reason}`,
        });
        return z.NEVER;
      }
    },
    encode: (regExp) => regExp.source,
  });
}

/** A text that is not empty. @param form if given, what it must look like */
export function text(what: string, form = /./) {
  const error = wrongType(what);
  return z.string({ error }).regex(form, { error });
}

/** One value, or a list of several. */
export function oneOrMore<T extends z.ZodType>(item: T) {
  return z.union([item, z.array(item)]);
}

/** A map with these keys and no others. */
export function section<T extends z.core.$ZodShape>(fields: T) {
  return z.strictObject(fields, { error: wrongType('a map of settings') });
}

export function list<T extends z.ZodType>(item: T) {
  return z.array(item, { error: wrongType('a list, in [brackets] even if it has one item') });
}
