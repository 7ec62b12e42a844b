/**
 * Lets in what has a valid signature: cosign's older and newer form by key or identity, or Notation's.
 *
 * One valid signature suffices, and others never spoil it.
 */
import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../../../clock.ts';
import { type Digest, digestAlgorithm, digestOf } from '../../../oci/digest.ts';
import {
  ALLOWED,
  type Evidence,
  type Finding,
  type PolicyPart,
  type Refusal,
  type Subject,
} from '../part.ts';
import { parseIdentity } from './notation/identities.ts';
import { NotationVerifier } from './notation/notation-verifier.ts';
import { readTrustStore } from './notation/trust-store.ts';
import { explain, invalid, type Outcome, type Problem, VALID } from './reading/outcome.ts';
import { COSE, type FoundSignature, JWS, SIMPLE_SIGNING, SignatureReader } from './reading/signatures.ts';
import type { SignatureSettings } from './settings.ts';
import { type Claim, claimOfBundle, claimOfSimpleSigning } from './sigstore/claims.ts';
import { readPublicKey } from './sigstore/keys.ts';
import { readTrustedRoot } from './sigstore/trusted-root.ts';
import { certificateOf, KeylessVerifier, KeyVerifier } from './sigstore/verifiers.ts';

export { type SignatureSettings, signatureFiles } from './settings.ts';

interface Verifiers {
  keys: KeyVerifier | undefined;
  keyless: KeylessVerifier | undefined;
  notation: NotationVerifier | undefined;
}

const AGAIN = 'a signature that is pushed now is seen 30 seconds after the refusal';

export class SignaturePart implements PolicyPart {
  readonly #verifiers: Verifiers;
  /** Whether any signature will do. */
  readonly #isAny: boolean;

  private constructor(verifiers: Verifiers) {
    this.#verifiers = verifiers;
    this.#isAny = Object.values(verifiers).every((verifier) => verifier === undefined);
  }

  /**
   * @param read gives the content of one of {@link signatureFiles}
   * @throws {FileError} a file cannot be used @throws {RangeError} settings that nothing could satisfy
   */
  static create(
    { cosign, keyless, notation }: SignatureSettings,
    read: (path: string) => Buffer,
    clock: Clock,
  ): SignaturePart {
    const keys = cosign && notEmpty(cosign.keys, 'keys').map((path) => readPublicKey(read(path), path));
    const logs = cosign?.transparencyLog?.trustedRoot;
    const logRoot = logs === undefined ? undefined : readTrustedRoot(read(logs), ['tlogs'], logs);
    return new SignaturePart({
      keys: keys && new KeyVerifier(keys, logRoot, clock),
      keyless: keyless && keylessVerifier(keyless, read, clock),
      notation: notation && notationVerifier(notation, read, clock),
    });
  }

  /** @throws what the evidence threw, if no valid signature was found @throws the reason of its signal */
  async judge(subject: Subject, evidence: Evidence): Promise<Finding> {
    const { keys, keyless, notation } = this.#verifiers;
    const wanted = {
      cosign: this.#isAny || keys !== undefined || keyless !== undefined,
      notation: this.#isAny || notation !== undefined,
    };
    const sha256 = digestAlgorithm(subject.digest) === 'sha256' ? subject.digest : digestOf(subject.bytes);
    const reader = new SignatureReader(evidence, wanted);
    const problems: Problem[] = [];
    let attestations = 0;
    for await (const found of reader.read(sha256)) {
      // Thousands of signatures must not keep the process from everything else, nor from hearing that time is up.
      await setImmediate();
      evidence.signal.throwIfAborted();
      const outcome = await this.#verify(found, subject, sha256);
      if (outcome === undefined) attestations += 1;
      else if (!outcome.isValid) problems.push(outcome.problem);
      else return outcome.until === undefined ? ALLOWED : { allowed: true, until: outcome.until };
    }
    if (reader.failure !== undefined) throw reader.failure;
    return this.#refusal(subject.digest, problems, attestations);
  }

  /** Undefined: it is not a signature. */
  async #verify(
    { mediaType, content, annotations }: FoundSignature,
    { digest }: Subject,
    sha256: Digest,
  ): Promise<Outcome | undefined> {
    if (content === undefined) return invalid('missing');
    if (mediaType === JWS || mediaType === COSE) {
      if (this.#isAny) return VALID;
      return mediaType === JWS ? this.#verifiers.notation?.verify(content, digest) : invalid('cose');
    }
    const claim =
      mediaType === SIMPLE_SIGNING
        ? claimOfSimpleSigning(content, annotations, sha256)
        : claimOfBundle(content, sha256);
    return claim === undefined || 'isValid' in claim ? claim : this.#verifyClaim(claim);
  }

  #verifyClaim(claim: Claim): Outcome {
    if (this.#isAny) return VALID;
    const { keys, keyless } = this.#verifiers;
    const outcomes = [keyless?.verify(claim), keys?.verify(claim)].filter((outcome) => outcome !== undefined);
    const [first = invalid('other-key'), second = first] = outcomes;
    if (first.isValid) return first;
    // Of two problems, that of the verifier for this kind of signature.
    return second.isValid || certificateOf(claim.bundle) === undefined ? second : first;
  }

  #refusal(digest: Digest, problems: readonly Problem[], attestations: number): Refusal {
    const none =
      attestations === 0
        ? 'it has no signature'
        : 'it has attestations, but no signature of the image itself';
    const reason = problems.length === 0 ? none : explain(problems);
    const { keys, keyless, notation } = this.#verifiers;
    const ways = [
      ...(keys === undefined ? [] : ['cosign and a key of the policy']),
      ...(keyless === undefined ? [] : ['cosign as the identity of the policy']),
      ...(notation === undefined ? [] : ['notation and a certificate of the policy']),
    ];
    const how = ways.length === 0 ? 'cosign or notation' : ways.join(', or with ');
    return {
      allowed: false,
      reason,
      advice: `sign ${digest} with ${how}; ${AGAIN}`,
      detail: { missing: 'signature', found: problems.length, problems: [...new Set(problems)] },
    };
  }
}

function keylessVerifier(
  { trustedRoot, ...identity }: NonNullable<SignatureSettings['keyless']>,
  read: (path: string) => Buffer,
  clock: Clock,
): KeylessVerifier {
  if (identity.issuer === '' || identity.subject === '')
    throw new RangeError('keyless needs an issuer and a subject');
  const needed = ['certificateAuthorities', 'tlogs', 'ctlogs'] as const;
  return new KeylessVerifier(identity, readTrustedRoot(read(trustedRoot), needed, trustedRoot), clock);
}

function notationVerifier(
  { trustStore, identities }: NonNullable<SignatureSettings['notation']>,
  read: (path: string) => Buffer,
  clock: Clock,
): NotationVerifier {
  const trust = {
    trustStore: notEmpty(trustStore, 'trustStore').flatMap((path) => readTrustStore(read(path), path)),
    identities: notEmpty(identities, 'identities').map((text) => {
      const identity = parseIdentity(text);
      if (identity === undefined)
        throw new RangeError(
          `${JSON.stringify(text)} is not an identity: write x509.subject: C=US, ST=WA, O=acme`,
        );
      return identity;
    }),
  };
  return new NotationVerifier(trust, clock);
}

function notEmpty<T>(list: readonly T[], name: string): readonly T[] {
  if (list.length === 0) throw new RangeError(`${name} is empty: nothing could be let in`);
  return list;
}
