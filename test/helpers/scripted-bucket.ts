/** A bucket on this machine: as much of S3 as the fleet uses, with faults on command. What real stores do, test/e2e shows. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';

export type BucketOperation = 'get' | 'put' | 'list' | 'delete' | 'versioning';

export interface BucketRequest {
  operation: BucketOperation;
  /** Of the object, with the fleet's prefix; the prefix of a list. */
  name: string;
  range?: string;
  /** By a URL that holds its signature. */
  presigned?: true;
}

export interface BucketReply {
  /** Answers with this error instead. */
  fails?: { status: number; code: string };
  /** Never answers. */
  hangs?: boolean;
  /** Sends this many bytes of the body, and then cuts the connection. */
  cutAfter?: number;
  /** Sends this many bytes of the body, and then nothing more. */
  stallsAfter?: number;
}

interface Stored {
  bytes: Buffer;
  writtenAt: Date;
}

const BUCKET = 'millpond';
const OLDEST_MS = 15 * 60_000;

export class ScriptedBucket {
  readonly url: string;
  /** By name, with the fleet's prefix. */
  readonly objects = new Map<string, Stored>();
  readonly requests: BucketRequest[] = [];
  /** How far its clock is ahead of this machine's. It refuses what is signed with a time that is too far off. */
  clockAheadMs = 0;
  isVersioned = false;
  /** Writes over what is there, whatever it is asked. */
  ignoresConditions = false;
  #script: (request: BucketRequest, reply: BucketReply) => void = () => undefined;

  private constructor(url: string) {
    this.url = url;
  }

  static async start(t: TestContext): Promise<ScriptedBucket> {
    const server = createServer((request, response) => {
      bucket.#answer(request, response).catch(() => response.destroy()); // the client has gone
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const bucket = new ScriptedBucket(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    cleanUp(t, () => server.close().closeAllConnections());
    return bucket;
  }

  /** Part of the configuration of a node, whose secret is in `secretFile`. */
  config(secretFile: string): Record<string, unknown> {
    return {
      objects: { bucket: BUCKET, endpoint: this.url, credentials: CREDENTIALS, maxUpload: 'none' },
      secret: { file: secretFile },
    };
  }

  /** Called for each request; replaces the script before it. */
  script(script: (request: BucketRequest, reply: BucketReply) => void): void {
    this.#script = script;
  }

  count(operation: BucketOperation, part = ''): number {
    return this.requests.filter((one) => one.operation === operation && one.name.includes(part)).length;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', 'http://bucket');
    const name = decodeURIComponent(url.pathname).slice(`/${BUCKET}/`.length);
    const operation = operationOf(request.method, url);
    const { range } = request.headers;
    const asked: BucketRequest = {
      ...{ operation, name: operation === 'list' ? (url.searchParams.get('prefix') ?? '') : name },
      ...(range === undefined ? {} : { range }),
      ...(url.searchParams.has('X-Amz-Signature') ? { presigned: true } : {}),
    };
    const now = Date.now() + this.clockAheadMs;
    response.setHeader('date', new Date(now).toUTCString());
    this.requests.push(asked);
    const body = await buffer(request);
    const reply: BucketReply = {};
    this.#script(asked, reply);
    if (reply.hangs === true) return;
    if (asked.presigned !== true && Math.abs(now - signedAt(request)) > OLDEST_MS)
      return sendError(response, 403, 'RequestTimeTooSkewed');
    if (reply.fails !== undefined) return sendError(response, reply.fails.status, reply.fails.code);
    switch (operation) {
      case 'get':
        return this.#get(name, range, reply, response);
      case 'put':
        return this.#put(name, body, request, response);
      case 'list':
        return this.#list(asked.name, response);
      case 'delete':
        this.objects.delete(name);
        return void response.writeHead(204).end();
      case 'versioning':
        return this.#versioning(response);
    }
  }

  #get(name: string, range: string | undefined, reply: BucketReply, response: ServerResponse): void {
    const stored = this.objects.get(name);
    if (stored === undefined) return sendError(response, 404, 'NoSuchKey');
    const { bytes, writtenAt } = stored;
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
    const end = last === '' ? bytes.length : Math.min(Number(last) + 1, bytes.length);
    if (range !== undefined && Number(first) >= bytes.length) return sendError(response, 416, 'InvalidRange');
    const part = bytes.subarray(Number(first), end);
    response.writeHead(range === undefined ? 200 : 206, {
      ...(range === undefined ? {} : { 'content-range': `bytes ${first}-${end - 1}/${bytes.length}` }),
      'content-length': part.length,
      etag: etagOf(bytes),
      'last-modified': writtenAt.toUTCString(),
    });
    const { cutAfter, stallsAfter } = reply;
    if (cutAfter !== undefined) response.write(part.subarray(0, cutAfter), () => response.destroy());
    else if (stallsAfter !== undefined) response.write(part.subarray(0, stallsAfter));
    else response.end(part);
  }

  #put(name: string, bytes: Buffer, { headers }: IncomingMessage, response: ServerResponse): void {
    if (headers['if-none-match'] === '*' && this.objects.has(name) && !this.ignoresConditions)
      return sendError(response, 412, 'PreconditionFailed');
    const checksum = headers['x-amz-checksum-sha256'];
    if (checksum !== undefined && checksum !== createHash('sha256').update(bytes).digest('base64'))
      return sendError(response, 400, 'BadDigest');
    this.objects.set(name, { bytes, writtenAt: new Date(FakeClock.START) });
    response.writeHead(200, { etag: etagOf(bytes) }).end();
  }

  #versioning(response: ServerResponse): void {
    const status = this.isVersioned ? '<Status>Enabled</Status>' : '';
    sendXml(response, 200, `<VersioningConfiguration>${status}</VersioningConfiguration>`);
  }

  #list(prefix: string, response: ServerResponse): void {
    const entries = [...this.objects].filter(([name]) => name.startsWith(prefix));
    const contents = entries.map(
      ([name, { bytes, writtenAt }]) =>
        `<Contents><Key>${name}</Key><Size>${bytes.length}</Size><ETag>${etagOf(bytes)}</ETag><LastModified>${writtenAt.toISOString()}</LastModified></Contents>`,
    );
    sendXml(response, 200, `<ListBucketResult>${contents.join('')}</ListBucketResult>`);
  }
}

/** They are anything: this bucket checks no signature. */
const CREDENTIALS = {
  accessKeyId: { env: 'FLEET_KEY_ID' },
  secretAccessKey: { env: 'FLEET_KEY' },
};

/** The environment of a node. */
export const BUCKET_ENVIRONMENT = { FLEET_KEY_ID: 'test', FLEET_KEY: 'a secret of the object store' };

/** Milliseconds since the epoch. */
function signedAt({ headers }: IncomingMessage): number {
  const [, ...parts] = /^(....)(..)(..)T(..)(..)(..)Z$/.exec(String(headers['x-amz-date'])) ?? [];
  const [year = 0, month = 0, ...rest] = parts.map(Number);
  return Date.UTC(year, month - 1, ...rest);
}

function operationOf(method: string | undefined, { searchParams }: URL): BucketOperation {
  if (method === 'PUT') return 'put';
  if (method === 'DELETE') return 'delete';
  if (searchParams.has('versioning')) return 'versioning';
  return searchParams.has('list-type') ? 'list' : 'get';
}

function etagOf(bytes: Buffer): string {
  return `"${createHash('md5').update(bytes).digest('hex')}"`;
}

function sendError(response: ServerResponse, status: number, code: string): void {
  sendXml(response, status, `<Error><Code>${code}</Code><Message>as the test asked for</Message></Error>`);
}

function sendXml(response: ServerResponse, status: number, xml: string): void {
  response.writeHead(status, { 'content-type': 'application/xml' }).end(`<?xml version="1.0"?>${xml}`);
}
