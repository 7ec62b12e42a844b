/** The client of one registry at one URL: OCI Distribution Specification, pull and content discovery. */
import type { Readable } from 'node:stream';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestOf, parseDigest } from '../../oci/digest.ts';
import { ACCEPT_ALL_MANIFESTS, MANIFEST_MAX_BYTES, OCI_INDEX } from '../../oci/manifest.ts';
import { isDigest, type ListQuery, type Reference, type Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Metrics, RequestKind } from '../../telemetry/metrics.ts';
import {
  AuthenticatedTransport,
  type AuthenticatedTransportSettings,
} from '../auth/authenticated-transport.ts';
import { UpstreamError } from '../errors.ts';
import type { Bandwidth } from '../limits/bandwidths.ts';
import { assertIdentity, readBody, replyError } from '../network/replies.ts';
import { contentLength, contentRange, firstValue, mediaTypeOf } from '../network/reply-headers.ts';
import { abandon, discard, type Reply, type TransportContext } from '../network/transport.ts';
import type {
  FetchedBlob,
  FetchedManifest,
  FetchedReferrers,
  FetchedTags,
  ManifestHead,
  Upstream,
} from '../upstream.ts';
import { nextPage } from './link.ts';

const LIST_MAX_BYTES = 8 * 1024 * 1024;
/** `OCI-Filters-Applied`: names, separated by commas. Nothing else may pass, because we send it on to clients. */
const FILTERS_APPLIED = /^[\w., -]{1,200}$/;

interface RegistryRequest {
  context: RequestContext;
  method: 'GET' | 'HEAD';
  kind: RequestKind;
  repository: Repository;
  /** What follows `/v2/<repository>/`. */
  path: string;
  query?: ListQuery;
  headers?: Record<string, string>;
  /** See {@link AuthenticatedTransport.send}. */
  keepToken?: boolean;
}

export interface ClientContext extends TransportContext {
  /** Absent: replies are not counted. */
  bandwidth?: Bandwidth;
}

export class UpstreamClient implements Upstream {
  readonly name: string;
  readonly #url: string;
  readonly #transport: AuthenticatedTransport;
  readonly #metrics: Metrics;
  readonly #clock: Clock;
  readonly #bandwidth: Bandwidth | undefined;

  /** @throws {Error} the CA or the client certificate cannot be used */
  constructor(settings: AuthenticatedTransportSettings, context: ClientContext) {
    this.name = settings.name;
    this.#url = settings.url;
    this.#transport = new AuthenticatedTransport(settings, context);
    this.#metrics = context.metrics;
    this.#clock = context.clock;
    this.#bandwidth = context.bandwidth;
  }

  async headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    { accept }: { accept?: string } = {},
  ): Promise<ManifestHead> {
    const reply = await this.#request(manifestRequest(context, 'HEAD', repository, reference, accept));
    await discard(reply);
    const digest = parseDigest(firstValue(reply.headers['docker-content-digest']) ?? '');
    const mediaType = mediaTypeOf(reply.headers);
    const size = contentLength(reply.headers);
    return {
      ...(digest === undefined ? {} : { digest }),
      ...(mediaType === undefined ? {} : { mediaType }),
      ...(size === undefined ? {} : { size }),
    };
  }

  async fetchManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    { accept }: { accept?: string } = {},
  ): Promise<FetchedManifest> {
    const reply = await this.#request(manifestRequest(context, 'GET', repository, reference, accept));
    const bytes = await this.#readAll(reply, 'manifest', MANIFEST_MAX_BYTES);
    // Compute the digest instead of reading Docker-Content-Digest, which many registries get wrong.
    const digest = digestOf(bytes, isDigest(reference) ? digestAlgorithm(reference) : 'sha256');
    if (isDigest(reference) && digest !== reference) {
      this.#metrics.contentRejected.inc({ upstream: this.name, reason: 'digest-mismatch' });
      throw new UpstreamError(
        'invalid-response',
        this.name,
        `sent content with the digest ${digest} for the manifest ${reference}`,
      );
    }
    return { bytes, digest, mediaType: mediaTypeOf(reply.headers) ?? '' };
  }

  async headBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
  ): Promise<{ size?: number }> {
    const request = { context, kind: 'blob', repository, path: `blobs/${digest}` } as const;
    const reply = await this.#send({ ...request, method: 'HEAD', keepToken: true });
    if (reply.status === 200) {
      await discard(reply);
      const size = contentLength(reply.headers);
      return size === undefined ? {} : { size };
    }
    // public.ecr.aws answers 401 to HEAD of a blob even with a token that is good for GET. So only the 401 of a GET
    // shows that the token is no longer good.
    if (reply.status !== 401 && reply.status !== 405) throw await this.#error(reply);
    await discard(reply);
    const probe = await this.#request(
      { ...request, method: 'GET', headers: { Range: 'bytes=0-0' } },
      [200, 206, 416],
    );
    const size = probe.status === 200 ? contentLength(probe.headers) : contentRange(probe.headers)?.size;
    abandon(probe);
    return size === undefined ? {} : { size };
  }

  async fetchBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    { from = 0, to }: { from?: number; to?: number } = {},
  ): Promise<FetchedBlob> {
    const range =
      from > 0 || to !== undefined ? `bytes=${from}-${to === undefined ? '' : to - 1}` : undefined;
    const reply = await this.#request(
      {
        context,
        method: 'GET',
        kind: 'blob',
        repository,
        path: `blobs/${digest}`,
        ...(range === undefined ? {} : { headers: { Range: range } }),
      },
      [200, 206],
    );
    assertIdentity(reply, this.name);
    const body = this.#countBytes(reply.body);
    if (reply.status === 200) {
      const size = contentLength(reply.headers);
      return { start: 0, ranged: false, body, ...(size === undefined ? {} : { size }) };
    }
    const sent = contentRange(reply.headers);
    if (
      range === undefined ||
      sent === undefined ||
      sent.start !== from ||
      (to !== undefined && sent.end > to)
    ) {
      abandon(reply);
      const what = `sent a different range of the blob than requested (${range ?? 'all of it'})`;
      throw new UpstreamError('invalid-response', this.name, what);
    }
    return { start: from, ranged: true, body, ...(sent.size === undefined ? {} : { size: sent.size }) };
  }

  async fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    const reply = await this.#request({
      context,
      method: 'GET',
      kind: 'tags',
      repository,
      path: 'tags/list',
      query,
    });
    return { body: await this.#readAll(reply, 'tags', LIST_MAX_BYTES), ...nextPage(reply.headers['link']) };
  }

  async fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    const headers = { Accept: OCI_INDEX };
    const reply = await this.#send({
      context,
      method: 'GET',
      kind: 'referrers',
      repository,
      path: `referrers/${digest}`,
      query,
      headers,
    });
    // Registries without this API answer 404 or 405, or redirect to an HTML page.
    const unsupported =
      [400, 404, 405, 406].includes(reply.status) ||
      (reply.status === 200 && mediaTypeOf(reply.headers) !== OCI_INDEX);
    if (unsupported) {
      await discard(reply);
      return undefined;
    }
    if (reply.status !== 200) throw await this.#error(reply);
    const filtersApplied = firstValue(reply.headers['oci-filters-applied']);
    return {
      body: await this.#readAll(reply, 'referrers', LIST_MAX_BYTES),
      ...nextPage(reply.headers['link']),
      ...(filtersApplied !== undefined && FILTERS_APPLIED.test(filtersApplied) ? { filtersApplied } : {}),
    };
  }

  close(): Promise<void> {
    return this.#transport.close();
  }

  /** @throws {UpstreamError} also if the status is not one of `success` */
  async #request(request: RegistryRequest, success: readonly number[] = [200]): Promise<Reply> {
    const reply = await this.#send(request);
    if (success.includes(reply.status)) return reply;
    throw await this.#error(reply);
  }

  #send({ path, query, headers = {}, ...request }: RegistryRequest): Promise<Reply> {
    const url = new URL(`${this.#url}/v2/${request.repository}/${path}`);
    if (query !== undefined) url.search = query;
    return this.#transport.send({ ...request, url, headers });
  }

  #error(reply: Reply): Promise<UpstreamError> {
    return replyError(reply, this.name, 'upstream', this.#clock.now());
  }

  /** Does not wait for bandwidth: the bodies are small, and what a client pulls next depends on them. */
  async #readAll(reply: Reply, kind: RequestKind, limit: number): Promise<Buffer> {
    const body = await readBody(reply, limit, this.name);
    this.#metrics.upstreamBytes.inc({ upstream: this.name, kind }, body.length);
    this.#bandwidth?.spendAhead(body.length);
    return body;
  }

  #countBytes(body: Readable): Readable {
    const labels = { upstream: this.name, kind: 'blob' } as const;
    body.on('data', (chunk: Buffer) => this.#metrics.upstreamBytes.inc(labels, chunk.length));
    return body.pause();
  }
}

function manifestRequest(
  context: RequestContext,
  method: 'GET' | 'HEAD',
  repository: Repository,
  reference: Reference,
  accept: string | undefined,
) {
  const headers = { Accept: accept ?? ACCEPT_ALL_MANIFESTS };
  return { context, method, kind: 'manifest', repository, path: `manifests/${reference}`, headers } as const;
}
