/**
 * What every field is made of: a codec between the text of the file and the value that the program uses, and the text of
 * its error. Because a codec also writes its value back, the output of `config print` loads as the same configuration.
 */
import * as z from 'zod';

const LONGEST_SHOWN = 60;

/**
 * A field that is text in the file and something else in the program.
 *
 * @param what completes the error "must be …" and gives an example
 * @param parse returns `undefined` for text that is not valid
 * @param value the type that the program uses
 * @param nearest what was probably meant by text that is not valid
 */
export function written<T>(
  what: string,
  parse: (text: string) => T | undefined,
  format: (value: T) => string,
  value: z.ZodType<T, T>,
  nearest?: (text: string) => string | undefined,
) {
  return z.codec(z.string({ error: wrongType(what) }), value, {
    decode: (text, context) => {
      const parsed = parse(text);
      if (parsed !== undefined) return parsed;
      const meant = nearest?.(text);
      const hint = meant === undefined ? '' : `; did you mean ${meant}?`;
      context.issues.push({
        code: 'custom',
        input: text,
        message: `${wrongType(what)({ input: text })}${hint}`,
      });
      return z.NEVER;
    },
    encode: format,
  });
}

/** The error text of a field that does not hold `what`. It shows what the field holds: never use it for secrets. */
export function wrongType(what: string) {
  return ({ input }: { input?: unknown }) =>
    input === undefined ? missing(what) : `must be ${what}, got ${shown(input)}`;
}

/** As {@link wrongType}, for fields that may hold a secret, by mistake or not: it never shows what the field holds. */
export function wrongSecret(what: string) {
  return ({ input }: { input?: unknown }) => (input === undefined ? missing(what) : `must be ${what}`);
}

function missing(what: string): string {
  return `is missing: it must be ${what}`;
}

/** A value as an error message shows it: short, on one line. */
export function shown(value: unknown): string {
  if (value === null) return 'nothing';
  if (typeof value === 'string')
    return JSON.stringify(value.length > LONGEST_SHOWN ? `${value.slice(0, LONGEST_SHOWN)}…` : value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return Array.isArray(value) ? 'a list' : 'a map';
}
