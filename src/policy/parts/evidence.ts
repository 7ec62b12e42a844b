/**
 * Asks upstream what there is beside a manifest: signatures, for example. Goes through the mirror, past the door, and
 * past what the mirror remembers of referrers and of missing tags: CI pushes first and signs some seconds later.
 */
import * as z from 'zod';
import type { BlobMirror } from '../../mirror/blobs/blob-mirror.ts';
import type { DiscoveryMirror, OpenReferrers } from '../../mirror/manifests/discovery-mirror.ts';
import type { ManifestMirror } from '../../mirror/manifests/manifest-mirror.ts';
import type { Manifest } from '../../mirror/manifests/manifest-store.ts';
import type { MirroredUpstream } from '../../mirror/mirrored-upstream.ts';
import { type Digest, parseDigest } from '../../oci/digest.ts';
import { OCI_INDEX } from '../../oci/manifest.ts';
import type { ListQuery, Reference } from '../../oci/reference.ts';
import { fallbackTag } from '../../oci/referrer-tags.ts';
import type { RequestContext } from '../../request-context.ts';
import { UpstreamError, unlessAbsent } from '../../upstream/errors.ts';
import type { Evidence, ReferrerDescriptor, Subject } from './part.ts';

export interface EvidenceContext {
  manifests: Pick<ManifestMirror, 'open'>;
  blobs: Pick<BlobMirror, 'open'>;
  discovery: Pick<DiscoveryMirror, 'referrers'>;
}

/** Stops an upstream whose pages lead in a circle. */
const MAX_PAGES = 20;

const REFERRERS = z.object({
  manifests: z.array(
    z.object({
      digest: z.string().transform((text) => parseDigest(text)),
      size: z.number(),
      mediaType: z.string(),
      artifactType: z.string().optional(),
    }),
  ),
});

export class MirrorEvidence implements Evidence {
  readonly signal: AbortSignal;
  readonly #subject: Subject;
  readonly #upstream: MirroredUpstream;
  readonly #context: EvidenceContext;
  readonly #request: RequestContext;

  constructor(
    subject: Subject,
    upstream: MirroredUpstream,
    context: EvidenceContext,
    request: EvidenceRequest,
  ) {
    this.signal = request.signal;
    this.#subject = subject;
    this.#upstream = upstream;
    this.#context = context;
    this.#request = request;
  }

  async manifest(reference: Reference): Promise<Manifest | undefined> {
    const asked = { ...this.#asked, reference, head: false, accept: undefined };
    const found = await this.#unlessAborted(unlessAbsent(this.#context.manifests.open(asked)));
    if (found === undefined) return undefined;
    const { digest, mediaType, bytes } = found;
    if (bytes === undefined) throw new Error(`${digest} was opened without its bytes`);
    return { digest, mediaType, bytes };
  }

  async referrers(): Promise<readonly ReferrerDescriptor[]> {
    const { discovery } = this.#context;
    const { digest, upstream } = this.#subject;
    const found: ReferrerDescriptor[] = [];
    let query: ListQuery | undefined = '';
    for (let pages = 0; query !== undefined; pages += 1) {
      if (pages === MAX_PAGES)
        throw new UpstreamError('invalid-response', upstream, `more than ${MAX_PAGES} pages of referrers`);
      const page: OpenReferrers | undefined = await this.#unlessAborted(
        unlessAbsent(discovery.referrers({ ...this.#asked, digest, query })),
      );
      // Without the API, a tag stands in for it (distribution-spec, "Referrers Tag Schema").
      if (page?.referrers === undefined) return this.#fallback();
      found.push(...referrersIn(page.referrers.body));
      query = page.referrers.next;
    }
    return found;
  }

  async blob(digest: Digest, maxBytes: number): Promise<Buffer | undefined> {
    const { segments } = this.#upstream;
    const opening = unlessAbsent(this.#context.blobs.open({ ...this.#asked, segments, digest }));
    const opened = await this.#unlessAborted(opening);
    if (opened === undefined) return undefined;
    const { content } = opened;
    try {
      if (content.size > maxBytes) return undefined;
      const bytes = Buffer.alloc(content.size);
      for (let at = 0; at < bytes.length; ) at += await content.read(bytes.subarray(at), at, content.size);
      return bytes;
    } finally {
      await content.close();
    }
  }

  /** Others may wait for the same request, so it goes on; we wait no longer. @throws the reason of the signal */
  async #unlessAborted<T>(answer: Promise<T>): Promise<T> {
    const { signal } = this;
    const aborted = Promise.withResolvers<never>();
    const abort = () => aborted.reject(signal.reason as Error);
    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
    try {
      return await Promise.race([answer, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  get #asked() {
    const { repository } = this.#subject;
    const { client, freshnessFor } = this.#upstream;
    const freshness = {
      ...freshnessFor(repository),
      ...{ tagTtlMs: 0, immutableTags: [], staleWhileRevalidateMs: 0, negativeTtlMs: 0 },
    };
    return { context: this.#request, upstream: client, repository, freshness };
  }

  async #fallback(): Promise<readonly ReferrerDescriptor[]> {
    const tag = fallbackTag(this.#subject.digest);
    const index = tag === undefined ? undefined : await this.manifest(tag);
    return index?.mediaType === OCI_INDEX ? referrersIn(index.bytes) : [];
  }
}

export type EvidenceRequest = RequestContext & { readonly signal: AbortSignal };

/** What cannot be read is no evidence. */
function referrersIn(bytes: Buffer): ReferrerDescriptor[] {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch {
    return [];
  }
  const { data } = REFERRERS.safeParse(json);
  return (data?.manifests ?? []).flatMap(({ digest, size, mediaType, artifactType }) =>
    digest === undefined
      ? []
      : [{ digest, size, mediaType, ...(artifactType === undefined ? {} : { artifactType }) }],
  );
}
