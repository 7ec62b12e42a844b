/**
 * A registry for tests: real HTTP servers with a small registry in memory, that misbehave on command and remember
 * everything they saw.
 *
 *     const upstream = await ScriptedUpstream.start(t);
 *     const image = upstream.addImage('library/alpine', 'latest', { layers: [100_000] });
 *     upstream.script({ kind: 'blob' }, (reply) => { reply.cutAfter = 5000; }, { times: 1 });
 *     … pull through a mirror whose upstream is upstream.url …
 *     assert.equal(upstream.count('blob', 'GET'), 2);
 *
 * With `auth` a token server stands beside it, with `cdn` its blobs are redirected to a host of their own that, like
 * an object store, refuses requests with an Authorization header.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { type Digest, digestOf, parseDigest } from '../../src/oci/digest.ts';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import { cleanUp } from './cleanup.ts';
import { buildImage, type ImageOptions, type TestImage } from './images.ts';
import { TokenServer, type TokenServerOptions } from './token-server.ts';

export type Kind = 'ping' | 'manifest' | 'blob' | 'tags' | 'referrers' | 'cdn' | 'other';

/** Content that need not be in memory as a whole. */
export interface Source {
  size: number;
  slice(start: number, end: number): Buffer;
}

/** A reply about to be sent; scripts change it. */
export interface Reply {
  status: number;
  /** An undefined value leaves the header out. */
  headers: Record<string, string | undefined>;
  body: Source | undefined;
  /** Part of the body that is sent. */
  start: number;
  end: number;
  /** Nothing is sent before this has resolved. */
  delay?: Promise<unknown>;
  /** After this many bytes of the body nothing is sent until the promise has resolved. */
  stall?: { after: number; until: Promise<unknown> };
  /** The connection is destroyed after this many bytes of the body. */
  cutAfter?: number;
  /** The body ends after this many bytes, as if that were all. */
  truncateAfter?: number;
  /** One bit is flipped at this position of the content. */
  corruptAt?: number;
  /** The connection is destroyed without an answer. */
  drop?: boolean;
  /** Bytes a second, for each connection. */
  rate?: number;
}

export type Script = (reply: Reply, request: SeenRequest) => void;

export interface SeenRequest {
  kind: Kind;
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingMessage['headers'];
  /** Bytes of the body sent so far. */
  bytesSent: number;
  /** Which connection of this server it came on. */
  connection: number;
  /** Resolves when the reply has been sent, or its connection closed. */
  done: Promise<void>;
}

interface Match {
  kind?: Kind;
  method?: string;
  path?: RegExp;
}

const CHUNK_BYTES = 64 * 1024;

export interface UpstreamOptions {
  auth?: Omit<TokenServerOptions, 'service'>;
  cdn?: boolean;
}

export class ScriptedUpstream {
  readonly requests: SeenRequest[] = [];
  readonly tokens: TokenServer | undefined;
  /** Connections that are open now, to the registry and its CDN. */
  readonly openConnections = new Set<Socket>();
  totalConnections = 0;
  /** The most blob bodies that were under way at one time. */
  peakBlobBodies = 0;
  #blobBodies = 0;
  #registry: Server | undefined;
  #cdn: Server | undefined;
  readonly #withCdn: boolean;
  #signature = 1;
  readonly #contents = new Map<Digest, Source>();
  readonly #typeByDigest = new Map<Digest, string>();
  readonly #digestByTag = new Map<string, Digest>();
  readonly #referrersByDigest = new Map<string, readonly Buffer[]>();
  readonly #scripts: { match: Match; script: Script; left: number }[] = [];
  readonly #watchers = new Set<() => void>();

  private constructor(options: UpstreamOptions) {
    this.#withCdn = options.cdn ?? false;
    if (options.auth !== undefined) this.tokens = new TokenServer({ ...options.auth, service: 'scripted' });
  }

  static async start(
    t: Pick<TestContext, 'after'>,
    options: UpstreamOptions = {},
  ): Promise<ScriptedUpstream> {
    const upstream = new ScriptedUpstream(options);
    upstream.#registry = await listen(
      (request, response) => upstream.#answerRegistry(request, response),
      upstream,
    );
    if (upstream.#withCdn) {
      upstream.#cdn = await listen((request, response) => upstream.#answerCdn(request, response), upstream);
    }
    await upstream.tokens?.start();
    cleanUp(t, () => upstream.close());
    return upstream;
  }

  get url(): string {
    return `http://127.0.0.1:${portOf(this.#registry)}`;
  }

  addContent(bytes: Buffer): Digest {
    const digest = digestOf(bytes);
    this.addSource(digest, { size: bytes.length, slice: (start, end) => bytes.subarray(start, end) });
    return digest;
  }

  addSource(digest: Digest, source: Source): void {
    this.#contents.set(digest, source);
  }

  /** @param tag tags it, too */
  addManifest(repository: string, bytes: Buffer, mediaType: string, tag?: string): Digest {
    const digest = this.addContent(bytes);
    this.#typeByDigest.set(digest, mediaType);
    if (tag !== undefined) this.#digestByTag.set(`${repository}:${tag}`, digest);
    return digest;
  }

  addImage(repository: string, tag: string, options: ImageOptions = {}): TestImage {
    const image = buildImage(options);
    for (const blob of image.blobs) this.addContent(blob);
    for (const { bytes, mediaType } of image.manifests) this.addManifest(repository, bytes, mediaType);
    this.addManifest(repository, image.top.bytes, image.top.mediaType, tag);
    return image;
  }

  /** @param pages told of one by one, with a token in `Link` that only this registry knows */
  addReferrers(digest: Digest, ...pages: readonly Buffer[]): void {
    this.#referrersByDigest.set(digest, pages);
  }

  removeTag(repository: string, tag: string): void {
    this.#digestByTag.delete(`${repository}:${tag}`);
  }

  /** Changes replies that match; the script that was added first is applied first. */
  script(match: Match, script: Script, options: { times?: number } = {}): void {
    this.#scripts.push({ match, script, left: options.times ?? Number.POSITIVE_INFINITY });
  }

  clearScripts(): void {
    this.#scripts.length = 0;
  }

  /** From now on the CDN refuses the URLs that were signed before. */
  expireSignatures(): void {
    this.#signature += 1;
  }

  count(kind: Kind, method?: string): number {
    return this.requests.filter(
      (request) => request.kind === kind && (method === undefined || request.method === method),
    ).length;
  }

  /** Resolves with the first request, past or future, that satisfies `predicate`. */
  async waitFor(predicate: (request: SeenRequest) => boolean): Promise<SeenRequest> {
    for (;;) {
      const found = this.requests.find(predicate);
      if (found !== undefined) return found;
      await this.#change();
    }
  }

  /** Resolves when blob bodies of at least `bytes` in all have been sent. */
  async waitForBytes(bytes: number): Promise<void> {
    while (this.blobBytesSent() < bytes) await this.#change();
  }

  blobBytesSent(): number {
    return this.requests
      .filter(({ kind, method }) => method === 'GET' && (kind === 'blob' || kind === 'cdn'))
      .reduce((sum, { bytesSent }) => sum + bytesSent, 0);
  }

  /** Stops listening and destroys every connection. Idempotent. */
  async close(): Promise<void> {
    for (const socket of this.openConnections) socket.destroy();
    await Promise.all([stop(this.#registry), stop(this.#cdn), this.tokens?.close()]);
    this.#registry = undefined;
    this.#cdn = undefined;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#watchers.add(resolve));
  }

  #changed(): void {
    const watchers = [...this.#watchers];
    this.#watchers.clear();
    for (const resolve of watchers) resolve();
  }

  async #answerRegistry(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const { kind, repository, last } = classify(url.pathname);
    const seen = this.#see(kind, url, request, response);
    const reply = this.#plan(seen, kind, repository, last);
    const challenge = this.tokens?.challengeFor(request.headers.authorization, repository);
    if (challenge !== undefined) {
      Object.assign(reply, errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': challenge }));
    }
    await this.#send(seen, reply, request, response);
  }

  async #answerCdn(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://cdn');
    const seen = this.#see('cdn', url, request, response);
    const digest = parseDigest(url.pathname.slice(1));
    let reply = contentReply(
      digest === undefined ? undefined : this.#contents.get(digest),
      request.headers.range,
    );
    if (request.headers.authorization !== undefined)
      reply = errorReply(400, 'ONLY_ONE_AUTH_MECHANISM_ALLOWED');
    else if (url.searchParams.get('verify') !== String(this.#signature)) reply = errorReply(403, 'EXPIRED');
    await this.#send(seen, reply, request, response);
  }

  #see(kind: Kind, url: URL, request: IncomingMessage, response: ServerResponse): SeenRequest {
    const seen: SeenRequest = {
      kind,
      method: request.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      bytesSent: 0,
      connection: (request.socket as Socket & { number?: number }).number ?? 0,
      done: new Promise((resolve) => response.once('close', () => resolve())),
    };
    this.requests.push(seen);
    this.#changed();
    return seen;
  }

  #plan(seen: SeenRequest, kind: Kind, repository: string, last: string): Reply {
    switch (kind) {
      case 'ping':
        return textReply(200, '{}', { 'content-type': 'application/json' });
      case 'manifest': {
        const digest = parseDigest(last) ?? this.#digestByTag.get(`${repository}:${last}`);
        const type = digest === undefined ? undefined : this.#typeByDigest.get(digest);
        if (digest === undefined || type === undefined) return errorReply(404, 'MANIFEST_UNKNOWN');
        const reply = contentReply(this.#contents.get(digest), undefined);
        reply.headers = { ...reply.headers, 'content-type': type, 'docker-content-digest': digest };
        return reply;
      }
      case 'blob': {
        const digest = parseDigest(last);
        const source = digest === undefined ? undefined : this.#contents.get(digest);
        if (source === undefined) return errorReply(404, 'BLOB_UNKNOWN');
        if (this.#cdn !== undefined && seen.method === 'GET') {
          const location = `http://127.0.0.1:${portOf(this.#cdn)}/${last}?verify=${this.#signature}`;
          return textReply(307, '', { location, 'cache-control': 'max-age=31536000' });
        }
        const reply = contentReply(source, seen.headers.range);
        reply.headers['docker-content-digest'] = last;
        return reply;
      }
      case 'tags': {
        const prefix = `${repository}:`;
        const tags = [...this.#digestByTag.keys()]
          .filter((key) => key.startsWith(prefix))
          .map((key) => key.slice(prefix.length))
          .toSorted();
        if (tags.length === 0) return errorReply(404, 'NAME_UNKNOWN');
        return this.#page(repository, tags, seen.query);
      }
      case 'referrers': {
        const pages = this.#referrersByDigest.get(last) ?? [];
        const at = Number(Buffer.from(seen.query.get('token') ?? '', 'base64url').toString());
        const page = pages[at];
        if (page === undefined) return errorReply(404, 'NOT_FOUND');
        const token = Buffer.from(String(at + 1)).toString('base64url');
        const more = at + 1 < pages.length;
        return textReply(200, page.toString(), {
          'content-type': OCI_INDEX,
          link: more ? `</v2/${repository}/referrers/${last}?token=${token}>; rel="next"` : undefined,
        });
      }
      case 'cdn':
      case 'other':
        return errorReply(404, 'NOT_FOUND');
    }
  }

  /** Like Docker Hub, it names itself in Link. */
  #page(repository: string, tags: string[], query: URLSearchParams): Reply {
    const after = query.get('last');
    const left = tags.filter((tag) => after === null || tag > after);
    const n = Number(query.get('n') ?? left.length);
    const page = left.slice(0, n);
    const more = left.length > page.length;
    const link = `<${this.url}/v2/${repository}/tags/list?n=${n}&last=${page.at(-1)}>; rel="next"`;
    return textReply(200, JSON.stringify({ name: repository, tags: page }), {
      'content-type': 'application/json',
      link: more ? link : undefined,
    });
  }

  async #send(
    seen: SeenRequest,
    reply: Reply,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    for (const entry of this.#scripts) {
      if (entry.left > 0 && matches(entry.match, seen)) {
        entry.left -= 1;
        entry.script(reply, seen);
      }
    }
    await reply.delay;
    if (reply.drop === true) response.destroy();
    if (response.destroyed) return;
    const headers = Object.entries(reply.headers).filter(
      (header): header is [string, string] => header[1] !== undefined,
    );
    response.writeHead(reply.status, Object.fromEntries(headers));
    if (request.method === 'HEAD' || reply.body === undefined) {
      response.end();
      return;
    }
    const isBlob = seen.kind === 'blob' || seen.kind === 'cdn';
    if (isBlob) this.peakBlobBodies = Math.max(this.peakBlobBodies, (this.#blobBodies += 1));
    try {
      await this.#sendBody(seen, reply, reply.body, response);
    } finally {
      if (isBlob) this.#blobBodies -= 1;
    }
  }

  async #sendBody(seen: SeenRequest, reply: Reply, body: Source, response: ServerResponse): Promise<void> {
    response.flushHeaders();
    const stop = Math.min(
      reply.end,
      reply.start + Math.min(reply.cutAfter ?? Infinity, reply.truncateAfter ?? Infinity),
    );
    let position = reply.start;
    const startedAt = performance.now();
    while (position < stop && !response.destroyed) {
      const stallAt = reply.stall === undefined ? Infinity : reply.start + reply.stall.after;
      if (position >= stallAt) {
        await Promise.race([reply.stall?.until, seen.done]);
        delete reply.stall;
        continue;
      }
      const end = Math.min(stop, position + CHUNK_BYTES, stallAt);
      const chunk = flipped(body.slice(position, end), position, reply.corruptAt);
      if (!(await writeChunk(response, chunk))) return;
      seen.bytesSent += end - position;
      position = end;
      this.#changed();
      if (reply.rate !== undefined) {
        const due = startedAt + ((position - reply.start) / reply.rate) * 1000;
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
      }
    }
    if (reply.cutAfter !== undefined) response.destroy();
    else if (reply.truncateAfter !== undefined && reply.headers['content-length'] !== undefined)
      response.destroy();
    else response.end();
  }
}

async function listen(
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
  upstream: ScriptedUpstream,
): Promise<Server> {
  const server = createServer((request, response) => void answer(request, response));
  server.on('connection', (socket: Socket & { number?: number }) => {
    upstream.totalConnections += 1;
    socket.number = upstream.totalConnections;
    upstream.openConnections.add(socket);
    socket.once('close', () => upstream.openConnections.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

async function stop(server: Server | undefined): Promise<void> {
  if (server === undefined) return;
  await new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
}

function portOf(server: Server | undefined): number {
  if (server === undefined) throw new Error('the upstream is closed');
  return (server.address() as AddressInfo).port;
}

function classify(path: string): { kind: Kind; repository: string; last: string } {
  if (path === '/v2/') return { kind: 'ping', repository: '', last: '' };
  const match = /^\/v2\/(.+)\/(manifests|blobs|tags|referrers)\/([^/]+)$/.exec(path);
  if (match === null) return { kind: 'other', repository: '', last: '' };
  const [, repository = '', resource, last = ''] = match;
  const kinds: Record<string, Kind> = {
    manifests: 'manifest',
    blobs: 'blob',
    tags: 'tags',
    referrers: 'referrers',
  };
  return { kind: kinds[resource ?? ''] ?? 'other', repository, last };
}

function contentReply(source: Source | undefined, range: string | undefined): Reply {
  if (source === undefined) return errorReply(404, 'BLOB_UNKNOWN');
  const headers: Reply['headers'] = {
    'content-type': 'application/octet-stream',
    'content-length': String(source.size),
  };
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? '');
  if (match === null) return { status: 200, headers, body: source, start: 0, end: source.size };
  const start = Number(match[1]);
  const end =
    match[2] === '' || match[2] === undefined ? source.size : Math.min(Number(match[2]) + 1, source.size);
  if (start >= source.size)
    return errorReply(416, 'RANGE_INVALID', { 'content-range': `bytes */${source.size}` });
  headers['content-length'] = String(end - start);
  headers['content-range'] = `bytes ${start}-${end - 1}/${source.size}`;
  return { status: 206, headers, body: source, start, end };
}

function textReply(status: number, text: string, headers: Reply['headers']): Reply {
  const bytes = Buffer.from(text);
  const body = { size: bytes.length, slice: (start: number, end: number) => bytes.subarray(start, end) };
  return {
    status,
    headers: { 'content-length': String(bytes.length), ...headers },
    body,
    start: 0,
    end: bytes.length,
  };
}

/** What a registry answers when it refuses; also for scripts: `Object.assign(reply, errorReply(503, 'UNAVAILABLE'))`. */
export function errorReply(status: number, code: string, headers: Reply['headers'] = {}): Reply {
  const text = JSON.stringify({ errors: [{ code, message: code.toLowerCase().replaceAll('_', ' ') }] });
  return textReply(status, text, { 'content-type': 'application/json', ...headers });
}

function matches(match: Match, seen: SeenRequest): boolean {
  return (
    (match.kind === undefined || match.kind === seen.kind) &&
    (match.method === undefined || match.method === seen.method) &&
    (match.path === undefined || match.path.test(seen.path))
  );
}

function flipped(chunk: Buffer, position: number, corruptAt: number | undefined): Buffer {
  if (corruptAt === undefined || corruptAt < position || corruptAt >= position + chunk.length) return chunk;
  const copy = Buffer.from(chunk);
  copy[corruptAt - position] = (copy[corruptAt - position] ?? 0) ^ 1;
  return copy;
}

/**
 * Resolves with true when the chunk has been handed to the system, with false when the client has gone.
 *
 * Both ways of learning that are needed. Node 24 never calls back for a write to a connection that is gone, so 'close'
 * has to end the wait. Node 26 calls back with an error before 'close' is emitted: a caller that went on writing would
 * keep that event from ever coming.
 */
function writeChunk(response: ServerResponse, chunk: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const onClose = () => resolve(false);
    response.once('close', onClose);
    response.write(chunk, (error) => {
      response.off('close', onClose);
      resolve(error === null || error === undefined);
    });
  });
}
