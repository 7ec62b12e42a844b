/** Keeps the claims of a JWT that rules may ask for. Pure. */
import { JwtError } from './errors.ts';

type ClaimScalar = string | number | boolean;
/** A claim that can be compared: objects are not, and are never kept. */
type ClaimValue = ClaimScalar | readonly ClaimScalar[];

/** By name. `sub` is always there. */
export type Claims = Readonly<Record<string, ClaimValue>> & { readonly sub: string };

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
