/**
 * A program: the registry that all servers under test fetch from. Content lies in memory and is made out of a seed.
 *
 * Prints `{"port","foreignPort","control"}` and serves until SIGTERM. On the control port:
 *   POST /noise {size, seed}                      → {digest}   a blob
 *   POST /content {base64, mediaType?, name?, tag?} → {digest}   a blob, or a manifest
 *   POST /throttle {@link Throttle}               left out: unlimited
 *   POST /foreign {@link Foreign}
 *   POST /reset, POST /stats                      → {@link UpstreamStats}
 *
 * `foreignPort` is another registry, which answers every blob of the first one with wrong bytes.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';

export interface Throttle {
  /** Bytes a second for each connection. */
  perConnection?: number;
  /** Bytes a second for all together. */
  total?: number;
}

/** How the foreign registry sends its wrong bytes. */
export interface Foreign {
  bytesPerSecond: number;
  /** Sends no more than this share of a blob, and keeps the connection open. 1: all of it. */
  share: number;
}

export interface UpstreamStats {
  /** By method and kind: `GET blobs`. */
  requests: Record<string, number>;
  /** Of bodies. */
  bytes: number;
  /** Of the bodies of the foreign registry. */
  foreignBytes: number;
  /** When the first byte of a body was sent, in ms since the epoch. */
  firstByteAt: number;
}

const MIB = 1024 * 1024;
const HEAD_BYTES = 64;
/** What one write takes; small under a limit, so that bytes flow evenly. */
const CHUNK_BYTES = MIB;
const LIMITED_CHUNK_BYTES = 128 * 1024;
/** What was not used of a limit is made up for no longer than this. */
const CREDIT_MS = 20;

interface Content {
  pieces: Buffer[];
  size: number;
  digest: string;
  mediaType: string;
}

class Pace {
  readonly #bytesPerMs: number;
  #nextAt = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  async take(bytes: number): Promise<void> {
    const now = performance.now();
    const at = Math.max(this.#nextAt, now - CREDIT_MS);
    this.#nextAt = at + bytes / this.#bytesPerMs;
    if (at > now) await setTimeout(at - now);
  }
}

const contents = new Map<string, Content>();
let noise = Buffer.alloc(0);
let stats: UpstreamStats = { requests: {}, bytes: 0, foreignBytes: 0, firstByteAt: 0 };
let perConnection: number | undefined;
let total: Pace | undefined;
let foreignManner: Foreign = { bytesPerSecond: MIB, share: 1 };
let paceBySocket = new WeakMap<Socket, Pace>();

const registry = createServer((request, response) => void serve(request, response));
const foreign = createServer((request, response) => void serveForeign(request, response));
const control = createServer((request, response) => {
  command(request)
    .then((answer) => response.end(JSON.stringify(answer)))
    .catch((error: unknown) => response.writeHead(500).end(String(error)));
});
for (const server of [registry, foreign, control]) {
  server.keepAliveTimeout = 600_000;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
}
const portOf = (server: typeof registry) => (server.address() as AddressInfo).port;
const ports = { port: portOf(registry), foreignPort: portOf(foreign), control: portOf(control) };
process.stdout.write(`${JSON.stringify(ports)}\n`);
process.once('SIGTERM', () => process.exit(0));

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? '';
  const match = /^\/v2\/(.+)\/(blobs|manifests)\/([^/]+)$/.exec(path);
  const kind = `${request.method} ${match?.[2] ?? path}`;
  stats.requests[kind] = (stats.requests[kind] ?? 0) + 1;
  if (path === '/v2/') return void response.end('{}');
  const [, name = '', , reference = ''] = match ?? [];
  const content = contents.get(reference) ?? contents.get(`${name}:${reference}`);
  if (content === undefined) {
    return void response.writeHead(404, { 'content-type': 'application/json' }).end('{"errors":[]}');
  }
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const start = Number(range?.[1] ?? 0);
  const end = range?.[2] ? Math.min(Number(range[2]) + 1, content.size) : content.size;
  response.writeHead(range === null ? 200 : 206, {
    'content-type': content.mediaType,
    'content-length': end - start,
    'docker-content-digest': content.digest,
    'docker-distribution-api-version': 'registry/2.0',
    etag: `"${content.digest}"`,
    'accept-ranges': 'bytes',
    ...(range === null ? {} : { 'content-range': `bytes ${start}-${end - 1}/${content.size}` }),
  });
  if (request.method === 'HEAD') return void response.end();
  await send(request.socket, response, content, start, end);
}

async function serveForeign(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const content = contents.get(/\/blobs\/(.+)$/.exec(request.url ?? '')?.[1] ?? '');
  if (content === undefined) return void response.end('{}');
  const { bytesPerSecond, share } = foreignManner;
  const chunk = Buffer.alloc(Math.min(LIMITED_CHUNK_BYTES, bytesPerSecond), 'wrong');
  const pace = new Pace(bytesPerSecond);
  response.writeHead(200, { 'content-length': content.size });
  for (let at = 0; at < content.size * share && !response.destroyed; at += chunk.length) {
    const piece = chunk.subarray(0, content.size - at);
    await pace.take(piece.length);
    stats.foreignBytes += piece.length;
    await write(response, piece);
  }
  // Without it, the next reply on this connection waits for ever.
  if (share === 1) response.end();
}

async function send(
  socket: Socket,
  response: ServerResponse,
  content: Content,
  start: number,
  end: number,
): Promise<void> {
  let pace: Pace | undefined;
  if (perConnection !== undefined) {
    pace = paceBySocket.get(socket) ?? new Pace(perConnection);
    paceBySocket.set(socket, pace);
  }
  const chunkBytes = pace === undefined && total === undefined ? CHUNK_BYTES : LIMITED_CHUNK_BYTES;
  for (let at = start; at < end && !response.destroyed; ) {
    const stop = Math.min(at + chunkBytes, end);
    await pace?.take(stop - at);
    await total?.take(stop - at);
    if (stats.firstByteAt === 0) stats.firstByteAt = performance.timeOrigin + performance.now();
    stats.bytes += stop - at;
    for (const piece of slice(content.pieces, at, stop)) await write(response, piece);
    at = stop;
  }
  response.end();
}

function slice(pieces: Buffer[], start: number, end: number): Buffer[] {
  const result: Buffer[] = [];
  let offset = 0;
  for (const piece of pieces) {
    const from = Math.max(start - offset, 0);
    const to = Math.min(end - offset, piece.length);
    if (from < to) result.push(piece.subarray(from, to));
    offset += piece.length;
  }
  return result;
}

function write(response: ServerResponse, piece: Buffer): Promise<void> | undefined {
  if (response.destroyed || response.write(piece)) return undefined;
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

async function command(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const body = JSON.parse(Buffer.concat(parts).toString() || '{}') as Record<string, string | number>;
  switch (request.url ?? '') {
    case '/noise':
      return { digest: addNoise(Number(body['size']), String(body['seed'])) };
    case '/content': {
      const mediaType = String(body['mediaType'] ?? 'application/octet-stream');
      const digest = add([Buffer.from(String(body['base64']), 'base64')], mediaType);
      const content = contents.get(digest);
      if (body['tag'] !== undefined && content !== undefined) {
        contents.set(`${body['name']}:${body['tag']}`, content);
      }
      return { digest };
    }
    case '/throttle':
      perConnection = body['perConnection'] === undefined ? undefined : Number(body['perConnection']);
      total = body['total'] === undefined ? undefined : new Pace(Number(body['total']));
      paceBySocket = new WeakMap();
      return {};
    case '/foreign':
      foreignManner = { bytesPerSecond: Number(body['bytesPerSecond']), share: Number(body['share']) };
      return {};
    case '/reset':
      stats = { requests: {}, bytes: 0, foreignBytes: 0, firstByteAt: 0 };
      return {};
    case '/stats':
      return stats;
    default:
      throw new Error(`no such command: ${request.url}`);
  }
}

/** All blobs share their noise, in memory too; only the first bytes come from their own seed. */
function addNoise(size: number, seed: string): string {
  if (noise.length < size) {
    noise = createCipheriv('aes-128-ctr', Buffer.alloc(16, 'noise'), Buffer.alloc(16)).update(
      Buffer.alloc(size),
    );
  }
  const head = createHash('sha512').update(seed).digest().subarray(0, Math.min(HEAD_BYTES, size));
  return add([head, noise.subarray(head.length, size)], 'application/octet-stream');
}

function add(pieces: Buffer[], mediaType: string): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  const digest = `sha256:${hash.digest('hex')}`;
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  contents.set(digest, { pieces, size, digest, mediaType });
  return digest;
}
