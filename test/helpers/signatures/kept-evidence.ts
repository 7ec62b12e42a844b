/**
 * Evidence whose bytes came from a real registry, where real programs have put them: test/fixtures/signatures.
 *
 * The e2e test keeps what it saw; unit tests judge it again.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Manifest } from '../../../src/mirror/manifests/manifest-store.ts';
import { type Digest, digestOf, parseDigest } from '../../../src/oci/digest.ts';
import type { Reference } from '../../../src/oci/reference.ts';
import type { Evidence, ReferrerDescriptor } from '../../../src/policy/parts/part.ts';

export const KEPT = resolve(import.meta.dirname, '../../fixtures/signatures/kept.json');

/** One image with its signatures. Everything in it is text, so that it can be read. */
export interface KeptCase {
  name: string;
  /** The image's manifest. */
  manifest: string;
  /** A public key, or the certificate of an authority. */
  trusted: string;
  referrers: readonly ReferrerDescriptor[];
  /** By tag or digest. */
  manifests: Record<string, { mediaType: string; text: string }>;
  /** By digest. */
  blobs: Record<string, string>;
  /** Milliseconds since the epoch. */
  madeAt: number;
}

export function keptCases(): readonly KeptCase[] {
  return JSON.parse(readFileSync(join(KEPT), 'utf8')) as readonly KeptCase[];
}

export class KeptEvidence implements Evidence {
  readonly signal = new AbortController().signal;
  readonly #kept: KeptCase;

  constructor(kept: KeptCase) {
    this.#kept = kept;
  }

  async manifest(reference: Reference): Promise<Manifest | undefined> {
    const manifest = this.#kept.manifests[reference];
    if (manifest === undefined) return undefined;
    const bytes = Buffer.from(manifest.text);
    return { digest: digestOf(bytes), mediaType: manifest.mediaType, bytes };
  }

  async referrers(): Promise<readonly ReferrerDescriptor[]> {
    return this.#kept.referrers;
  }

  async blob(digest: Digest, maxBytes: number): Promise<Buffer | undefined> {
    const text = this.#kept.blobs[digest];
    return text === undefined || text.length > maxBytes ? undefined : Buffer.from(text);
  }
}

/** Asks a registry over HTTP, and notes what it says. */
export class RegistryEvidence implements Evidence {
  readonly signal = new AbortController().signal;
  readonly seen: Pick<KeptCase, 'referrers' | 'manifests' | 'blobs'> & { referrers: ReferrerDescriptor[] } = {
    referrers: [],
    manifests: {},
    blobs: {},
  };
  /** `http://127.0.0.1:5000/v2/acme/app`. */
  readonly #url: string;
  readonly #subject: Digest;

  constructor(url: string, subject: Digest) {
    this.#url = url;
    this.#subject = subject;
  }

  async manifest(reference: Reference): Promise<Manifest | undefined> {
    const headers = {
      accept: 'application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json',
    };
    const reply = await fetch(`${this.#url}/manifests/${reference}`, { headers });
    if (reply.status !== 200) return undefined;
    const bytes = Buffer.from(await reply.arrayBuffer());
    const mediaType = reply.headers.get('content-type') ?? '';
    this.seen.manifests[reference] = { mediaType, text: bytes.toString() };
    return { digest: digestOf(bytes), mediaType, bytes };
  }

  /** docker-registry of Debian has no API for it, so clients keep the list under a tag. */
  async referrers(): Promise<readonly ReferrerDescriptor[]> {
    const reply = await fetch(`${this.#url}/manifests/${this.#subject.replace(':', '-')}`, {
      headers: { accept: 'application/vnd.oci.image.index.v1+json' },
    });
    if (reply.status !== 200) return [];
    const { manifests } = (await reply.json()) as { manifests: ReferrerDescriptor[] };
    this.seen.referrers = manifests.filter(({ digest }) => parseDigest(digest) !== undefined);
    return this.seen.referrers;
  }

  async blob(digest: Digest, maxBytes: number): Promise<Buffer | undefined> {
    const reply = await fetch(`${this.#url}/blobs/${digest}`);
    if (reply.status !== 200) return undefined;
    const bytes = Buffer.from(await reply.arrayBuffer());
    this.seen.blobs[digest] = bytes.toString();
    return bytes.length > maxBytes ? undefined : bytes;
  }
}
