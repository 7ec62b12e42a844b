/**
 * Finds the signatures of a manifest: those that refer to it, and cosign's older ones under a tag that its digest names.
 *
 * Looks at a bounded number of them, since anybody who may push can add more.
 */
import { type Digest, digestHex, parseDigest } from '../../../../oci/digest.ts';
import { parseTag, type Reference } from '../../../../oci/reference.ts';
import type { Evidence } from '../../part.ts';
import { arrayOf, type JsonObject, objectOf, parseObject, stringOf } from './json.ts';

export const SIMPLE_SIGNING = 'application/vnd.dev.cosign.simplesigning.v1+json';
export const BUNDLE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
const NOTATION = 'application/vnd.cncf.notary.signature';
export const JWS = 'application/jose+json';
export const COSE = 'application/cose';

/** With the tag that cosign names. */
const MAX_MANIFESTS = 64;
const MAX_LAYERS = 64;
const MAX_BLOB_BYTES = 1024 * 1024;

/** A layer of a signature's manifest. */
export interface FoundSignature {
  /** What it says it is. */
  mediaType: string;
  /** Undefined: it is listed, and missing or too large. */
  content: Buffer | undefined;
  annotations: JsonObject;
}

/** Which signatures are looked for. */
export interface Wanted {
  cosign: boolean;
  notation: boolean;
}

export class SignatureReader {
  readonly #evidence: Evidence;
  readonly #wanted: Wanted;
  /** The first piece of evidence that could not be had. Others may still be enough. */
  failure: Error | undefined;

  constructor(evidence: Evidence, wanted: Wanted) {
    this.#evidence = evidence;
    this.#wanted = wanted;
  }

  /**
   * Goes on after a failure, and leaves it in `failure`.
   *
   * @param sha256 of the manifest
   * @throws the reason of `evidence.signal` when it aborts
   */
  async *read(sha256: Digest): AsyncGenerator<FoundSignature> {
    const referrers = (await this.#try(() => this.#evidence.referrers()))?.had ?? [];
    const kinds = [...(this.#wanted.cosign ? [BUNDLE] : []), ...(this.#wanted.notation ? [NOTATION] : [])];
    const listed = referrers.filter(({ artifactType = '' }) => kinds.includes(artifactType));
    for (const { digest, artifactType } of listed.slice(0, MAX_MANIFESTS - 1))
      yield* this.#layers(digest, artifactType === BUNDLE ? [BUNDLE] : [JWS, COSE]);
    const tag = parseTag(`sha256-${digestHex(sha256)}.sig`);
    if (this.#wanted.cosign && tag !== undefined) yield* this.#layers(tag, [SIMPLE_SIGNING]);
  }

  async *#layers(reference: Reference, mediaTypes: readonly string[]): AsyncGenerator<FoundSignature> {
    const manifest = await this.#try(() => this.#evidence.manifest(reference));
    const bytes = manifest?.had?.bytes;
    const layers = arrayOf(bytes && parseObject(bytes)?.['layers']).slice(0, MAX_LAYERS);
    // Signatures of several keys are often over the same payload.
    let last: { digest: Digest; content: Buffer | undefined } | undefined;
    for (const layer of layers.map(objectOf)) {
      const mediaType = stringOf(layer?.['mediaType']);
      const digest = parseDigest(stringOf(layer?.['digest']) ?? '');
      if (mediaType === undefined || digest === undefined || !mediaTypes.includes(mediaType)) continue;
      if (last?.digest !== digest) {
        const blob = await this.#try(() => this.#evidence.blob(digest, MAX_BLOB_BYTES));
        if (blob === undefined) continue;
        last = { digest, content: blob.had };
      }
      yield { mediaType, content: last.content, annotations: objectOf(layer?.['annotations']) ?? {} };
    }
  }

  /** @returns undefined after a failure */
  async #try<T>(ask: () => Promise<T>): Promise<{ had: T } | undefined> {
    const { signal } = this.#evidence;
    signal.throwIfAborted();
    try {
      return { had: await ask() };
    } catch (error) {
      signal.throwIfAborted();
      this.failure ??= error instanceof Error ? error : new Error(String(error));
      return undefined;
    }
  }
}
