/** What every field is made of: the way from the text of the file to the value and back, and the text of its error. */
import * as z from 'zod';

/** A field that is written as text and held as something else. */
export function written<T>(
  what: string,
  parse: (text: string) => T | undefined,
  format: (value: T) => string,
  held: z.ZodType<T, T>,
) {
  return z.codec(z.string({ error: wrongType(what) }), held, {
    decode: (text, context) => {
      const value = parse(text);
      if (value !== undefined) return value;
      context.issues.push({ code: 'custom', input: text, message: wrongType(what)({ input: text }) });
      return z.NEVER;
    },
    encode: format,
  });
}

/** The error text of a field that does not hold `what`. Not for secrets: it shows what the field holds. */
export function wrongType(what: string) {
  return (issue: { input?: unknown }) => `must be ${what}, got ${shown(issue.input)}`;
}

export function shown(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return Array.isArray(value) ? 'a list' : 'a map';
}
