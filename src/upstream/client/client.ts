/** One upstream registry, as the mirror needs it: every method is one question, asked with all that it takes. */
import type { Readable } from 'node:stream';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestOf, parseDigest } from '../../oci/digest.ts';
import { ACCEPT_ALL_MANIFESTS, MANIFEST_MAX_BYTES, OCI_INDEX } from '../../oci/manifest.ts';
import { isDigest, type ListQuery, type Reference, type Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Metrics, RequestKind } from '../../telemetry/metrics.ts';
import { type TokenSettings, Tokens } from '../auth/tokens.ts';
import { toUpstreamError, UpstreamError } from '../errors.ts';
import { assertIdentity, isEncoded, readBody, replyError } from '../network/replies.ts';
import {
  discard,
  type Reply,
  single,
  Transport,
  type TransportContext,
  type TransportSettings,
} from '../network/transport.ts';
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
/** `OCI-Filters-Applied`: names, with commas between them. It goes on to clients, so it may be nothing else. */
const FILTERS = /^[\w., -]{1,200}$/;

export interface UpstreamSettings extends TransportSettings, TokenSettings {}

interface Question {
  context: RequestContext;
  method: 'GET' | 'HEAD';
  kind: RequestKind;
  repository: Repository;
  /** Behind `/v2/<repository>/`. */
  path: string;
  query?: ListQuery;
  headers?: Record<string, string>;
  /** Another question follows a refusal anyway, so a 401 is no reason to renew a token. */
  keepToken?: boolean;
}

export class UpstreamClient implements Upstream {
  readonly name: string;
  readonly #url: string;
  readonly #transport: Transport;
  readonly #tokens: Tokens;
  readonly #metrics: Metrics;
  readonly #clock: Clock;

  constructor(settings: UpstreamSettings, context: TransportContext) {
    this.name = settings.name;
    this.#url = settings.url;
    this.#transport = new Transport(settings, context);
    this.#tokens = new Tokens(settings, this.#transport, context.clock);
    this.#metrics = context.metrics;
    this.#clock = context.clock;
  }

  async headManifest(
    context: RequestContext,
    repository: Repository,
    reference: Reference,
    { accept }: { accept?: string } = {},
  ): Promise<ManifestHead> {
    const reply = await this.#ask(manifestQuestion(context, 'HEAD', repository, reference, accept));
    await discard(reply);
    const digest = parseDigest(single(reply.headers['docker-content-digest']) ?? '');
    const mediaType = mediaTypeOf(reply);
    const size = contentLength(reply);
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
    const reply = await this.#ask(manifestQuestion(context, 'GET', repository, reference, accept));
    const bytes = await readBody(reply, MANIFEST_MAX_BYTES, this.name);
    this.#metrics.upstreamBytes.inc({ upstream: this.name, kind: 'manifest' }, bytes.length);
    // Upstream's own Docker-Content-Digest is not looked at: too many registries get it wrong.
    const digest = digestOf(bytes, isDigest(reference) ? digestAlgorithm(reference) : 'sha256');
    if (isDigest(reference) && digest !== reference) {
      this.#metrics.contentRejected.inc({ upstream: this.name, reason: 'digest-mismatch' });
      throw new UpstreamError('invalid-response', this.name, `sent ${digest} for the manifest ${reference}`);
    }
    return { bytes, digest, mediaType: mediaTypeOf(reply) ?? '' };
  }

  async headBlob(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
  ): Promise<{ size?: number }> {
    const question = { context, kind: 'blob', repository, path: `blobs/${digest}` } as const;
    const reply = await this.#exchange({ ...question, method: 'HEAD', keepToken: true });
    if (reply.status === 200) {
      await discard(reply);
      const size = contentLength(reply);
      return size === undefined ? {} : { size };
    }
    // public.ecr.aws answers 401 to HEAD of a blob that it gives to GET. So it is GET's 401 that tells of a token.
    if (reply.status !== 401 && reply.status !== 405) throw await this.#error(reply);
    await discard(reply);
    const probe = await this.#ask(
      { ...question, method: 'GET', headers: { Range: 'bytes=0-0' } },
      [200, 206, 416],
    );
    const size = probe.status === 200 ? contentLength(probe) : contentRange(probe)?.size;
    probe.body.on('error', () => undefined).destroy();
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
    const reply = await this.#ask(
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
      const size = contentLength(reply);
      return { start: 0, ranged: false, body, ...(size === undefined ? {} : { size }) };
    }
    const sent = contentRange(reply);
    if (
      range === undefined ||
      sent === undefined ||
      sent.start !== from ||
      (to !== undefined && sent.end > to)
    ) {
      body.on('error', () => undefined).destroy();
      const what = `sent another range of a blob than the ${range ?? 'whole'} that was asked for`;
      throw new UpstreamError('invalid-response', this.name, what);
    }
    return { start: from, ranged: true, body, ...(sent.size === undefined ? {} : { size: sent.size }) };
  }

  async fetchTags(context: RequestContext, repository: Repository, query: ListQuery): Promise<FetchedTags> {
    const reply = await this.#ask({
      context,
      method: 'GET',
      kind: 'tags',
      repository,
      path: 'tags/list',
      query,
    });
    return { body: await this.#readList(reply, 'tags'), ...nextPage(reply.headers['link']) };
  }

  async fetchReferrers(
    context: RequestContext,
    repository: Repository,
    digest: Digest,
    query: ListQuery,
  ): Promise<FetchedReferrers | undefined> {
    const headers = { Accept: OCI_INDEX };
    const reply = await this.#exchange({
      context,
      method: 'GET',
      kind: 'referrers',
      repository,
      path: `referrers/${digest}`,
      query,
      headers,
    });
    // Registries without the API answer 404, 405, or lead to some page of theirs.
    const unsupported =
      [400, 404, 405, 406].includes(reply.status) ||
      (reply.status === 200 && mediaTypeOf(reply) !== OCI_INDEX);
    if (unsupported) {
      await discard(reply);
      return undefined;
    }
    if (reply.status !== 200) throw await this.#error(reply);
    const filtersApplied = single(reply.headers['oci-filters-applied']);
    return {
      body: await this.#readList(reply, 'referrers'),
      ...nextPage(reply.headers['link']),
      ...(filtersApplied !== undefined && FILTERS.test(filtersApplied) ? { filtersApplied } : {}),
    };
  }

  close(): Promise<void> {
    return this.#transport.close();
  }

  /** @throws {UpstreamError} also for every status but those of success */
  async #ask(question: Question, success: readonly number[] = [200]): Promise<Reply> {
    const reply = await this.#exchange(question);
    if (success.includes(reply.status)) return reply;
    throw await this.#error(reply);
  }

  /** Sends a question with what authorisation it takes: for each host that is led to, at most one token and replay more. */
  async #exchange({
    context,
    method,
    kind,
    repository,
    path,
    query,
    headers,
    keepToken = false,
  }: Question): Promise<Reply> {
    const url = new URL(`${this.#url}/v2/${repository}/${path}`);
    if (query !== undefined) url.search = query;
    const send = (to: URL, authorization: string | undefined) =>
      this.#transport.send({
        context,
        method,
        url: to,
        kind,
        headers: authorization === undefined ? { ...headers } : { ...headers, Authorization: authorization },
      });
    const known = await this.#unlessAborted(this.#tokens.known(context, repository), context);
    let reply = await send(url, known);
    if (reply.status === 401 && reply.url.origin === url.origin && !(keepToken && known !== undefined)) {
      const answer = await this.#answerTo(
        reply,
        this.#tokens.answer(context, reply, repository, known),
        context,
      );
      if (answer === undefined) return reply;
      reply = await send(url, answer);
    }
    if (reply.status === 401 && reply.url.origin !== url.origin) {
      // registry.k8s.io leads to registries that want a token of their own; ours is none of their business.
      const anonymous = await this.#answerTo(
        reply,
        this.#tokens.anonymous(context, reply, repository),
        context,
      );
      if (anonymous === undefined) return reply;
      reply = await send(reply.url, anonymous);
    }
    return reply;
  }

  /** Lets go of `reply` unless it is the last word; an error, too, must not leave its connection to nobody. */
  async #answerTo(
    reply: Reply,
    authorization: Promise<string | undefined>,
    context: RequestContext,
  ): Promise<string | undefined> {
    try {
      const answer = await this.#unlessAborted(authorization, context);
      if (answer !== undefined) await discard(reply);
      return answer;
    } catch (error) {
      await discard(reply);
      throw error;
    }
  }

  /** A token is fetched for all who need it, so that goes on; only who is broken off waits for it no longer. */
  async #unlessAborted<T>(promise: Promise<T>, { signal }: RequestContext): Promise<T> {
    if (signal === undefined) return promise;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const abort = () => reject(toUpstreamError(signal.reason, this.name));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    try {
      return await Promise.race([promise, aborted]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  #error(reply: Reply): Promise<UpstreamError> {
    return replyError(reply, this.name, 'upstream', this.#clock.now());
  }

  async #readList(reply: Reply, kind: RequestKind): Promise<Buffer> {
    const body = await readBody(reply, LIST_MAX_BYTES, this.name);
    this.#metrics.upstreamBytes.inc({ upstream: this.name, kind }, body.length);
    return body;
  }

  #countBytes(body: Readable): Readable {
    const labels = { upstream: this.name, kind: 'blob' } as const;
    body.on('data', (chunk: Buffer) => this.#metrics.upstreamBytes.inc(labels, chunk.length));
    return body.pause();
  }
}

function manifestQuestion(
  context: RequestContext,
  method: 'GET' | 'HEAD',
  repository: Repository,
  reference: Reference,
  accept: string | undefined,
) {
  const headers = { Accept: accept ?? ACCEPT_ALL_MANIFESTS };
  return { context, method, kind: 'manifest', repository, path: `manifests/${reference}`, headers } as const;
}

function mediaTypeOf(reply: Reply): string | undefined {
  return single(reply.headers['content-type'])?.split(';', 1)[0]?.trim().toLowerCase();
}

function contentLength(reply: Reply): number | undefined {
  const text = isEncoded(reply) ? undefined : single(reply.headers['content-length']);
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** `end` is exclusive; an unsatisfied range, which has only a size, gets -1 for both ends. */
function contentRange(reply: Reply): { start: number; end: number; size?: number } | undefined {
  const match = /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)$/.exec(
    single(reply.headers['content-range']) ?? '',
  );
  if (match === null) return undefined;
  const size = match[3] === '*' ? undefined : Number(match[3]);
  const [start, last] = [Number(match[1] ?? -1), Number(match[2] ?? -2)];
  return { start, end: last + 1, ...(size === undefined ? {} : { size }) };
}
