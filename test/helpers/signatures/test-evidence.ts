/** A repository in memory, as a part of a policy sees it: an image, and what stands beside it. */

import type { Manifest } from '../../../src/mirror/manifests/manifest-store.ts';
import { type Digest, digestHex, digestOf } from '../../../src/oci/digest.ts';
import { OCI_MANIFEST, parseManifest } from '../../../src/oci/manifest.ts';
import { parseRepository, type Reference } from '../../../src/oci/reference.ts';
import type { Evidence, ReferrerDescriptor, Subject } from '../../../src/policy/parts/part.ts';
import { buildImage } from '../images.ts';

export interface TestLayer {
  mediaType: string;
  content: Buffer;
  annotations?: Record<string, unknown>;
}

export class TestEvidence implements Evidence {
  readonly #abort = new AbortController();
  readonly signal = this.#abort.signal;
  readonly manifests = new Map<string, Manifest>();
  readonly blobs = new Map<string, Buffer>();
  readonly listed: ReferrerDescriptor[] = [];
  /** What was asked for: `referrers`, a tag or a digest. */
  readonly asked: string[] = [];
  /** What cannot be had, and the error that says why. */
  readonly failures = new Map<string, Error>();
  /** Called with everything that is asked for. */
  onAsk: (what: string) => void = () => {};

  async manifest(reference: Reference): Promise<Manifest | undefined> {
    this.#ask(reference);
    return this.manifests.get(reference);
  }

  async referrers(): Promise<readonly ReferrerDescriptor[]> {
    this.#ask('referrers');
    return this.listed;
  }

  async blob(digest: Digest, maxBytes: number): Promise<Buffer | undefined> {
    this.#ask(digest);
    const blob = this.blobs.get(digest);
    return blob !== undefined && blob.length <= maxBytes ? blob : undefined;
  }

  abort(reason: Error): void {
    this.#abort.abort(reason);
  }

  /** Adds a manifest that refers to the image. */
  addReferrer(artifactType: string, layers: readonly TestLayer[]): this {
    const manifest = this.#manifestOf(layers, artifactType);
    this.manifests.set(manifest.digest, manifest);
    const { digest, mediaType, bytes } = manifest;
    this.listed.push({ digest, mediaType, size: bytes.length, artifactType });
    return this;
  }

  /** Adds cosign's older form, under its tag. */
  addTag(subject: Digest, layers: readonly TestLayer[]): this {
    this.manifests.set(`sha256-${digestHex(subject)}.sig`, this.#manifestOf(layers));
    return this;
  }

  #manifestOf(layers: readonly TestLayer[], artifactType?: string): Manifest {
    const described = layers.map(({ mediaType, content, annotations }) => {
      const digest = digestOf(content);
      this.blobs.set(digest, content);
      return { mediaType, digest, size: content.length, annotations };
    });
    const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, artifactType, layers: described };
    const bytes = Buffer.from(JSON.stringify(manifest));
    return { digest: digestOf(bytes), mediaType: OCI_MANIFEST, bytes };
  }

  #ask(what: string): void {
    this.asked.push(what);
    this.onAsk(what);
    const failure = this.failures.get(what);
    if (failure !== undefined) throw failure;
  }
}

/** @param bytes of the manifest; default: an image made from `seed` */
export function testSubject(seed = 'app', bytes = buildImage({ seed }).top.bytes): Subject {
  const parsed = parseManifest(bytes, OCI_MANIFEST);
  const repository = parseRepository('acme/app');
  if (parsed === undefined || repository === undefined) throw new Error('not a manifest');
  const { mediaType } = parsed;
  return { upstream: 'ghcr.io', repository, digest: digestOf(bytes), mediaType, bytes, parsed };
}
