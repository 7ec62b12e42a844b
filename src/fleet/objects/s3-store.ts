/** Objects in a bucket of an S3-compatible store. */
import { Agent } from 'node:https';
import type { Readable } from 'node:stream';
import {
  DeleteObjectCommand,
  GetBucketVersioningCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import type { Clock } from '../../clock.ts';
import { EngineError } from '../engines/errors.ts';
import type {
  GetOptions,
  ListedObject,
  ObjectBytes,
  ObjectContent,
  ObjectStore,
  PutOptions,
  WrittenObject,
} from './object-store.ts';
import { atRightTime, engineError, hasStatus, isAboutBucket } from './s3-errors.ts';

export interface S3Settings {
  bucket: string;
  /** Absent: AWS's own. */
  endpoint: string | undefined;
  region: string;
  /** Begins every name; ends with a slash. */
  prefix: string;
  /** Absent: what the SDK finds in environment, profile, role or web identity. */
  credentials:
    | (() => Promise<{ accessKeyId: string; secretAccessKey: string; expiration?: Date }>)
    | undefined;
  /** PEM bundle to trust in addition to the usual authorities. */
  ca: string | undefined;
  clock: Pick<Clock, 'now'>;
}

const CONNECT_TIMEOUT_MS = 500;
const MAX_CONNECTIONS = 64;
/** A larger object is written in parts: more than 5 GiB in one request is refused, and much is lost when it breaks. */
const WHOLE_MAX_BYTES = 256 * 1024 * 1024;
const PART_MIN_BYTES = 16 * 1024 * 1024;
const PARTS_MAX = 10_000;
/** Parts of one upload that are in memory at a time. */
const PARTS_AT_A_TIME = 2;
/** "409 Conflict … retry" (S3 User Guide, conditional writes): another writer was at it in the same moment. */
const CONFLICT_TRIES = 3;

/** The SDK would write to the console otherwise. What it has to say is in its errors. */
const SILENT = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export class S3Store implements ObjectStore {
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #clock: Pick<Clock, 'now'>;

  constructor({ bucket, endpoint, region, prefix, credentials, ca, clock }: S3Settings) {
    this.#clock = clock;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#client = new S3Client({
      region,
      maxAttempts: 1, // whoever asks decides what comes next
      logger: SILENT,
      // The digest is the checksum: we check it ourselves, and not every store knows the newer ones.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      ...(credentials === undefined ? {} : { credentials }),
      requestHandler: {
        connectionTimeout: CONNECT_TIMEOUT_MS,
        httpAgent: { maxSockets: MAX_CONNECTIONS, keepAlive: true },
        httpsAgent: new Agent({
          maxSockets: MAX_CONNECTIONS,
          keepAlive: true,
          ...(ca === undefined ? {} : { ca }),
        }),
      },
    });
  }

  async get(name: string, { from, to, signal }: GetOptions): Promise<ObjectBytes | undefined> {
    const range = rangeOf(from ?? 0, to);
    const command = new GetObjectCommand({
      ...this.#at(name),
      ...(range === undefined ? {} : { Range: range }),
    });
    try {
      const reply = await atRightTime(() => this.#client.send(command, { abortSignal: signal }));
      const { ETag: etag = '', LastModified: writtenAt } = reply;
      const size = Number(/\/(\d+)$/.exec(reply.ContentRange ?? '')?.[1] ?? reply.ContentLength);
      const body = reply.Body as Readable | undefined;
      if (
        body === undefined ||
        !Number.isSafeInteger(size) ||
        (range !== undefined && reply.ContentRange === undefined)
      )
        throw new EngineError('invalid-response', `the object store answered without what ${name} needs`);
      return { size, etag, writtenAt: writtenAt?.getTime() ?? 0, body };
    } catch (error) {
      // Archived content cannot be read for hours, so that it counts as gone.
      if (hasStatus(error, 404) && !isAboutBucket(error)) return undefined;
      if (error instanceof S3ServiceException && error.name === 'InvalidObjectState') return undefined;
      throw engineError(error, signal);
    }
  }

  async put(
    name: string,
    content: ObjectContent,
    { onlyIf, signal }: PutOptions,
  ): Promise<WrittenObject | 'present'> {
    const condition = onlyIf === undefined ? {} : { IfNoneMatch: '*' };
    for (let attempt = 1; ; attempt += 1) {
      try {
        const write = () => this.#write({ ...this.#at(name), ...condition }, content, signal);
        return { etag: await atRightTime(write) };
      } catch (error) {
        if (hasStatus(error, 412)) return 'present';
        if (hasStatus(error, 409) && attempt < CONFLICT_TRIES) continue;
        throw error instanceof ContentUnreadableError ? error.cause : engineError(error, signal);
      }
    }
  }

  async delete(name: string, signal: AbortSignal): Promise<void> {
    const command = new DeleteObjectCommand(this.#at(name));
    await this.#send(() => this.#client.send(command, { abortSignal: signal }), signal);
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<ListedObject[]> {
    let token: string | undefined;
    do {
      const command = new ListObjectsV2Command({
        ...{ Bucket: this.#bucket, Prefix: this.#prefix + prefix },
        ...(token === undefined ? {} : { ContinuationToken: token }),
      });
      const page = await this.#send(() => this.#client.send(command, { abortSignal: signal }), signal);
      token = page.NextContinuationToken;
      yield (page.Contents ?? []).map(({ Key = '', Size = 0, ETag = '', LastModified }) => ({
        ...{ name: Key.slice(this.#prefix.length), size: Size, etag: ETag },
        writtenAt: LastModified?.getTime() ?? 0,
      }));
    } while (token !== undefined);
  }

  async presign(name: string, { forMs, signal }: { forMs: number; signal: AbortSignal }): Promise<string> {
    const { getSignedUrl } = await import('@aws-sdk/s3-request-presigner'); // few fleets need it
    // The SDK knows from the store's replies how far its clock is ahead of this machine's.
    const signingDate = new Date(this.#clock.now() + this.#client.config.systemClockOffset);
    const command = new GetObjectCommand(this.#at(name));
    const options = { expiresIn: forMs / 1000, signingDate };
    return this.#send(() => getSignedUrl(this.#client, command, options), signal);
  }

  async isVersioned(signal: AbortSignal): Promise<boolean | undefined> {
    const command = new GetBucketVersioningCommand({ Bucket: this.#bucket });
    try {
      const reply = await atRightTime(() => this.#client.send(command, { abortSignal: signal }));
      return reply.Status === 'Enabled';
    } catch (error) {
      // Few need the permission to ask, and not every store knows the question.
      if (error instanceof S3ServiceException && error.$metadata.httpStatusCode !== undefined)
        return undefined;
      throw engineError(error, signal);
    }
  }

  close(): void {
    this.#client.destroy();
  }

  async #write(
    to: { Bucket: string; Key: string; IfNoneMatch?: string },
    { size, sha256, open }: ObjectContent,
    signal: AbortSignal,
  ): Promise<string> {
    const body = open();
    const broken = new AbortController();
    // Otherwise the error ends the process, and the request waits for the rest.
    body.on('error', (error) => broken.abort(error));
    const stop = AbortSignal.any([signal, broken.signal]);
    try {
      const { ETag = '' } = await (size <= WHOLE_MAX_BYTES
        ? this.#writeWhole(to, { body, size, sha256 }, stop)
        : this.#writeInParts(to, { body, size }, stop));
      return ETag;
    } catch (error) {
      throw broken.signal.aborted ? new ContentUnreadableError(broken.signal.reason) : error;
    } finally {
      body.destroy();
    }
  }

  async #writeWhole(
    to: { Bucket: string; Key: string },
    { body, size, sha256 }: { body: Readable; size: number; sha256: string | undefined },
    stop: AbortSignal,
  ): Promise<{ ETag?: string | undefined }> {
    const checksum =
      sha256 === undefined ? {} : { ChecksumSHA256: Buffer.from(sha256, 'hex').toString('base64') };
    const command = new PutObjectCommand({ ...to, ...checksum, Body: body, ContentLength: size });
    return this.#client.send(command, { abortSignal: stop });
  }

  async #writeInParts(
    to: { Bucket: string; Key: string },
    { body, size }: { body: Readable; size: number },
    stop: AbortSignal,
  ): Promise<{ ETag?: string | undefined }> {
    const upload = new Upload({
      client: this.#client,
      params: { ...to, Body: body, ChecksumAlgorithm: 'SHA256' },
      partSize: Math.max(PART_MIN_BYTES, Math.ceil(size / PARTS_MAX)),
      queueSize: PARTS_AT_A_TIME,
    });
    const onAbort = () => void upload.abort();
    stop.addEventListener('abort', onAbort);
    return upload.done().finally(() => stop.removeEventListener('abort', onAbort));
  }

  async #send<T>(send: () => Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await atRightTime(send);
    } catch (error) {
      throw engineError(error, signal);
    }
  }

  #at(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + name };
  }
}

/** What was to be written could not be read. */
class ContentUnreadableError extends Error {
  override readonly name = 'ContentUnreadableError';

  constructor(cause: unknown) {
    super('what was to be written could not be read', { cause });
  }
}

function rangeOf(from: number, to: number | undefined): string | undefined {
  if (to !== undefined) return `bytes=${from}-${to - 1}`;
  return from === 0 ? undefined : `bytes=${from}-`;
}
