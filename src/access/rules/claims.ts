/** The `claims` of a rule, and whether those of a token satisfy them. */
import { compileGlob } from './glob.ts';

/** What one claim must be. In a string, `*` stands for any text. */
export type ClaimPattern = string | number | boolean;

/** All of them must hold. Of a list, one pattern is enough. */
export type ClaimPatterns = Readonly<Record<string, ClaimPattern | readonly ClaimPattern[]>>;

/** @returns the name of the first claim that does not hold, or undefined when all hold */
export type ClaimsCheck = (claims: Readonly<Record<string, unknown>>) => string | undefined;

/**
 * Compares whole values with their types: `'1'` is not `1`, because an issuer that changes the type has changed the
 * meaning. Of a claim that is a list, one element is enough. A claim that is missing never matches.
 */
export function compileClaims(patterns: ClaimPatterns): ClaimsCheck {
  const checks = Object.entries(patterns).map(([name, accepted]) => {
    const tests = asList(accepted).map(compileClaim);
    return { name, matches: (value: unknown) => tests.some((matches) => matches(value)) };
  });
  return (claims) =>
    checks.find(({ name, matches }) => {
      const value = claims[name];
      return Array.isArray(value) ? !value.some(matches) : !matches(value);
    })?.name;
}

function compileClaim(pattern: ClaimPattern): (value: unknown) => boolean {
  if (typeof pattern !== 'string' || !pattern.includes('*')) return (value) => value === pattern;
  const matches = compileGlob(pattern);
  return (value) => typeof value === 'string' && matches(value);
}

/** What may be written as one or as a list of several. */
export function asList<T>(value: T | readonly T[]): readonly T[] {
  return Array.isArray(value) ? (value as readonly T[]) : [value as T];
}
