/**
 * Says whether a claim of cosign is genuine, and by whom the policy wants it to be.
 *
 * Sigstore's library says whether the cryptography holds. Who signed is compared here, after it, and never by it: its
 * pattern of an identity is not anchored, and an issuer that is left out is not looked at.
 */

import type { KeyObject } from 'node:crypto';
import type { Bundle } from '@sigstore/bundle';
import {
  type SignedEntity,
  type TrustMaterial,
  toSignedEntity,
  VerificationError,
  Verifier,
} from '@sigstore/verify';
import { compileGlob, type Glob } from '../../../../access/rules/glob.ts';
import type { Clock } from '../../../../clock.ts';
import { invalid, type Outcome, type Problem, VALID } from '../reading/outcome.ts';
import type { Claim } from './claims.ts';
import { isSignedBy } from './keys.ts';
import { isLoggedFor } from './log-entries.ts';
import { signerOf } from './signer.ts';

const NO_TRUST: Omit<TrustMaterial, 'publicKey'> = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
};

/** Signatures by one of several keys. */
export class KeyVerifier {
  readonly #keys: readonly KeyObject[];
  readonly #root: TrustMaterial | undefined;
  readonly #clock: Clock;

  /** @param root the logs of which one must have the signature; undefined: none need have it */
  constructor(keys: readonly KeyObject[], root: TrustMaterial | undefined, clock: Clock) {
    this.#keys = keys;
    this.#root = root;
    this.#clock = clock;
  }

  verify(claim: Claim): Outcome {
    const problems = this.#keys.map((key) => attempt(() => this.#verifyBy(key, claim)));
    if (problems.includes(undefined)) return VALID;
    return invalid(problems.includes('log') ? 'log' : problems.includes('time') ? 'time' : 'other-key');
  }

  /** Undefined: it is by `key`. @throws {VerificationError} */
  #verifyBy(key: KeyObject, claim: Claim): Problem | undefined {
    const entity: SignedEntity = { ...entityOf(claim), key: { $case: 'public-key', hint: '' } };
    // Asked for first: a signature by another key is not one that is missing from the log.
    if (!entity.signature.verifySignature(key)) return 'other-key';
    const isLogged = this.#root !== undefined;
    const trusted = this.#root === undefined ? NO_TRUST : trustAt(this.#root, entity, this.#clock.now());
    const publicKey = () => ({ publicKey: key, validFor: () => true });
    const options = { tlogThreshold: isLogged ? 1 : 0, timestampThreshold: 0, ctlogThreshold: 0 };
    const checked = isLogged ? entity : { ...entity, tlogEntries: [], timestamps: [] };
    new Verifier({ ...trusted, publicKey }, options).verify(checked);
    return isLogged && !isLoggedFor(claim.bundle, key) ? 'log' : undefined;
  }
}

/** Signatures by an identity that an authority has certified for some minutes. */
export class KeylessVerifier {
  readonly #issuer: string;
  readonly #isSubject: Glob;
  readonly #root: TrustMaterial;
  readonly #clock: Clock;

  /** @param subject `*` stands for any text */
  constructor({ issuer, subject }: { issuer: string; subject: string }, root: TrustMaterial, clock: Clock) {
    this.#issuer = issuer;
    this.#isSubject = compileGlob(subject);
    this.#root = root;
    this.#clock = clock;
  }

  verify(claim: Claim): Outcome {
    const certificate = certificateOf(claim.bundle);
    if (certificate === undefined) return invalid('by-key');
    const problem = attempt(() => this.#verifyOf(certificate, claim));
    return problem === undefined ? VALID : invalid(problem);
  }

  /** @throws {VerificationError} */
  #verifyOf(certificate: Buffer, claim: Claim): Problem | undefined {
    const entity = entityOf(claim);
    const trusted = trustAt(this.#root, entity, this.#clock.now());
    const options = { tlogThreshold: 1, timestampThreshold: 1, ctlogThreshold: 1 };
    const { key } = new Verifier(trusted, options).verify(entity);
    if (!isLoggedFor(claim.bundle, key, certificate)) return 'log';
    const signer = signerOf(certificate);
    if (signer === undefined) return 'certificate';
    if (signer.issuer !== this.#issuer) return 'other-issuer';
    return this.#isSubject(signer.subject) ? undefined : 'other-subject';
  }
}

export function certificateOf({ verificationMaterial: { content } }: Bundle): Buffer | undefined {
  switch (content.$case) {
    case 'certificate':
      return Buffer.from(content.certificate.rawBytes);
    case 'x509CertificateChain':
      return Buffer.from(content.x509CertificateChain.certificates[0]?.rawBytes ?? []);
    case 'publicKey':
      return undefined;
  }
}

/** Knows other hashes than SHA-256, which the library's own check of a signature does not. */
function entityOf({ bundle, signed }: Claim): SignedEntity {
  const entity = toSignedEntity(bundle, signed);
  const { signature } = entity;
  return {
    ...entity,
    signature: {
      signature: signature.signature,
      compareSignature: (other) => signature.compareSignature(other),
      compareDigest: (other) => signature.compareDigest(other),
      compareSignedDigest: (other) => signature.compareSignedDigest(other),
      verifySignature: (key) => isSignedBy(key, signed, signature.signature),
    },
  };
}

/**
 * Leaves out the logs that were not in use when the signature was made. The library looks at their time only where the
 * log itself tells it, and not where it only proves that it has the entry.
 */
function trustAt(root: TrustMaterial, { timestamps }: SignedEntity, now: number): TrustMaterial {
  const times = timestamps.flatMap((one) => {
    if (one.$case === 'timestamp-authority') return one.timestamp.signingTime.getTime();
    const { inclusionPromise, integratedTime } = one.tlogEntry;
    return inclusionPromise === undefined ? [] : Number(integratedTime) * 1000;
  });
  const wanted = times.length === 0 ? [now] : times;
  const tlogs = root.tlogs.filter(({ validFor: { start, end } }) =>
    wanted.every((time) => start.getTime() <= time && time <= end.getTime()),
  );
  return { ...root, tlogs };
}

/** Whatever goes wrong inside a library of what strangers sent: it is not valid. */
function attempt(verify: () => Problem | undefined): Problem | undefined {
  try {
    return verify();
  } catch (error) {
    return error instanceof VerificationError ? problemOf(error.code) : 'unreadable';
  }
}

function problemOf(code: VerificationError['code']): Problem {
  if (code.startsWith('TLOG')) return 'log';
  if (code === 'CERTIFICATE_ERROR') return 'certificate';
  return code === 'TIMESTAMP_ERROR' ? 'time' : 'broken';
}
