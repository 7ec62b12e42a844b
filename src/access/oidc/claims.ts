/** Keeps and compares the claims of a JWT that rules may ask for. Pure. */
import { JwtError } from './errors.ts';

type ClaimScalar = string | number | boolean;
/** A claim that can be compared: objects are not, and are never kept. */
type ClaimValue = ClaimScalar | readonly ClaimScalar[];

/** By name. `sub` is always there. */
export type Claims = Readonly<Record<string, ClaimValue>> & { readonly sub: string };

/**
 * What a rule asks of claims. A string may hold `*`, which stands for any characters, `/` and `:` among them.
 */
export type ExpectedClaims = Readonly<Record<string, ClaimScalar>>;

/**
 * Limits the claims, because every access token carries them in a header. Node takes 16 KiB of headers in all.
 */
const MAX_BYTES = 4096;

/**
 * The claims called `names`, and `sub`.
 *
 * @throws {JwtError} there is no `sub`, or they are larger than 4 KiB together. They are not cut: a list without its
 *   end would refuse a client that the rules let in, and nobody could see why.
 */
export function keepClaims(payload: Readonly<Record<string, unknown>>, names: readonly string[]): Claims {
  const { sub } = payload;
  if (typeof sub !== 'string' || sub === '')
    throw new JwtError('malformed', 'the JWT has no subject (the claim "sub")');
  const kept: [string, ClaimValue][] = names.flatMap((name) => {
    const value = Object.hasOwn(payload, name) ? comparable(payload[name]) : undefined;
    return value === undefined ? [] : [[name, value]];
  });
  // Not by assignment: a claim may be called `__proto__`.
  const claims = { ...(Object.fromEntries(kept) as Record<string, ClaimValue>), sub };
  if (Buffer.byteLength(JSON.stringify(claims)) > MAX_BYTES)
    throw new JwtError('too-large', `the claims that the rules ask for are larger than ${MAX_BYTES} bytes`);
  return claims;
}

function comparable(value: unknown): ClaimValue | undefined {
  if (isScalar(value)) return value;
  return Array.isArray(value) ? value.filter(isScalar) : undefined;
}

function isScalar(value: unknown): value is ClaimScalar {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}

/**
 * Makes the comparison for a rule: every expected claim must match. A claim is compared whole and with its type
 * (`'1'` is not `1`), a list matches if one of its elements does, and a missing claim never matches.
 */
export function claimsMatcher(expected: ExpectedClaims): (claims: Claims) => boolean {
  const matchers = Object.entries(expected).map(([name, value]) => {
    const matches = scalarMatcher(value);
    return (claims: Claims) => {
      const actual = Object.hasOwn(claims, name) ? claims[name] : undefined;
      if (actual === undefined) return false;
      return isScalar(actual) ? matches(actual) : actual.some(matches);
    };
  });
  return (claims) => matchers.every((matches) => matches(claims));
}

function scalarMatcher(expected: ClaimScalar): (actual: ClaimScalar) => boolean {
  if (typeof expected !== 'string' || !expected.includes('*')) return (actual) => actual === expected;
  const parts = expected.split('*');
  return (actual) => typeof actual === 'string' && matchesParts(actual, parts);
}

/**
 * Whether `text` is `parts` in their order, with anything in between. Not a regular expression: with several `*` it
 * would backtrack over a value that the client chooses, such as the name of a branch.
 */
function matchesParts(text: string, parts: readonly string[]): boolean {
  const first = parts[0] ?? '';
  const last = parts.at(-1) ?? '';
  if (text.length < first.length + last.length) return false;
  if (!text.startsWith(first) || !text.endsWith(last)) return false;
  const end = text.length - last.length;
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = text.indexOf(part, at);
    if (found === -1 || found + part.length > end) return false;
    at = found + part.length;
  }
  return true;
}
