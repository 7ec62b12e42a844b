/**
 * Says whether a Notation signature is one that the policy wants.
 *
 * Without a timestamp of a third party, a signature holds only while its certificates do.
 * https://github.com/notaryproject/specifications/blob/main/specs/trust-store-trust-policy.md
 */
import type { KeyObject, X509Certificate } from 'node:crypto';
import { flattenedVerify } from 'jose';
import type { Clock } from '../../../../clock.ts';
import type { Digest } from '../../../../oci/digest.ts';
import { arrayOf, type JsonObject, objectOf, stringOf } from '../reading/json.ts';
import { invalid, type Outcome, type Problem } from '../reading/outcome.ts';
import { parseCertificate, periodOf } from './chain.ts';
import { type Envelope, readEnvelope } from './envelope.ts';
import { type Identity, isIdentity } from './identities.ts';

const SCHEME = 'io.cncf.notary.signingScheme';
const EXPIRY = 'io.cncf.notary.expiry';
const SIGNING_TIME = 'io.cncf.notary.signingTime';
const AUTHENTIC_SIGNING_TIME = 'io.cncf.notary.authenticSigningTime';
const PAYLOAD_TYPE = 'application/vnd.cncf.notary.payload.v1+json';
/** Each kind of key has one algorithm. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
  2048: 'PS256',
  3072: 'PS384',
  4096: 'PS512',
};

export interface NotationTrust {
  trustStore: readonly X509Certificate[];
  identities: readonly Identity[];
}

export class NotationVerifier {
  readonly #trust: NotationTrust;
  readonly #clock: Clock;

  constructor(trust: NotationTrust, clock: Clock) {
    this.#trust = trust;
    this.#clock = clock;
  }

  /** @param digest that must be signed */
  async verify(content: Buffer, digest: Digest): Promise<Outcome> {
    const envelope = readEnvelope(content);
    if (envelope === undefined) return invalid('unreadable');
    if (objectOf(envelope.payload['targetArtifact'])?.['digest'] !== digest) return invalid('other-digest');
    try {
      return await this.#verify(envelope);
    } catch {
      return invalid('unreadable');
    }
  }

  /** @throws {Error} something of it cannot be read */
  async #verify({ jws, headers, chain }: Envelope): Promise<Outcome> {
    const problem = problemOf(headers);
    if (problem !== undefined) return invalid(problem);
    const [signer] = chain;
    const period = periodOf(chain, this.#trust.trustStore);
    if (signer === undefined || period === undefined) return invalid('certificate');
    if (!(await isSigned(jws, signer.publicKey))) return invalid('broken');
    const parsed = parseCertificate(signer);
    if (!this.#trust.identities.some((identity) => isIdentity(identity, parsed)))
      return invalid('other-subject');
    const now = this.#clock.now();
    if (now < period.from || period.until < now) return invalid('certificate');
    const expiry = timeOf(headers[EXPIRY]);
    if (expiry !== undefined && expiry <= now) return invalid('expired');
    return { isValid: true, until: Math.min(period.until, expiry ?? period.until) };
  }
}

/** What is wrong with the headers that are signed. What is critical and not known is refused by `jose`. */
function problemOf(headers: JsonObject): Problem | undefined {
  const critical = arrayOf(headers['crit']);
  if (headers['cty'] !== PAYLOAD_TYPE) return 'unreadable';
  // The other scheme trusts the signer for the time, which needs a trust store of its own.
  if (headers[SCHEME] !== 'notary.x509' || AUTHENTIC_SIGNING_TIME in headers) return 'unsupported';
  if (critical.some((name) => name !== SCHEME && name !== EXPIRY)) return 'unsupported';
  if (!critical.includes(SCHEME) || timeOf(headers[SIGNING_TIME]) === undefined) return 'unreadable';
  if (!(EXPIRY in headers)) return undefined;
  return critical.includes(EXPIRY) && timeOf(headers[EXPIRY]) !== undefined ? undefined : 'unreadable';
}

/** In milliseconds since the epoch. @param value as RFC 3339 has it */
function timeOf(value: unknown): number | undefined {
  const text = stringOf(value) ?? '';
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/.test(text)
    ? Date.parse(text)
    : NaN;
  return Number.isNaN(time) ? undefined : time;
}

async function isSigned(jws: Envelope['jws'], key: KeyObject): Promise<boolean> {
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {};
  const algorithm = ALGORITHMS[namedCurve ?? modulusLength ?? ''];
  if (algorithm === undefined) return false;
  try {
    await flattenedVerify({ ...jws, header: { ...jws.header } }, key, {
      algorithms: [algorithm],
      crit: { [SCHEME]: true, [EXPIRY]: true },
    });
    return true;
  } catch {
    return false;
  }
}
