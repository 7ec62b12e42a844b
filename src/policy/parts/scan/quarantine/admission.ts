/** What one scan may have: a manifest, its config and its layers, for as long as the scan runs. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Digest } from '../../../../oci/digest.ts';
import type { Subject } from '../../part.ts';
import type { Patience } from '../limits/patience.ts';
import type { QuarantineBlob, QuarantineContent } from './content.ts';
import { refuse } from './replies.ts';

const TOKEN_BYTES = 32;

/** What a scanner's GET or HEAD asks for. */
export interface QuarantineRequest {
  isHead: boolean;
  /** Where to begin, from `Range: bytes=N-`. */
  start: number;
}

export class Admission implements Disposable {
  readonly token = randomBytes(TOKEN_BYTES).toString('base64url');
  readonly #proof = hash(this.token);
  readonly #subject: Subject;
  readonly #content: QuarantineContent;
  readonly #patience: Patience;
  readonly #missing: Set<Digest>;
  readonly #problems = new Map<Digest, Error>();
  readonly #over = new AbortController();
  readonly #leave: (admission: Admission) => void;

  constructor(
    subject: Subject,
    content: QuarantineContent,
    patience: Patience,
    leave: (admission: Admission) => void,
  ) {
    this.#subject = subject;
    this.#content = content;
    this.#patience = patience;
    this.#leave = leave;
    this.#missing = new Set(subject.parsed.blobs.map(({ digest }) => digest));
  }

  /** Compared by hashes of one length, in constant time, so that a wrong token tells nothing by how long it takes. */
  isProvedBy(token: string): boolean {
    return timingSafeEqual(hash(token), this.#proof);
  }

  /**
   * Checks that the scanner got what it asked for. Otherwise the outcome says nothing about image and scanner.
   *
   * @throws what the content threw
   */
  requireContent(): void {
    for (const error of this.#problems.values()) throw error;
  }

  answerManifest(digest: string, { isHead }: QuarantineRequest, response: ServerResponse): void {
    const { bytes, mediaType } = this.#subject;
    if (digest !== this.#subject.digest) return refuse(response, 404, 'MANIFEST_UNKNOWN');
    response.writeHead(200, {
      'content-type': mediaType,
      'content-length': bytes.length,
      'docker-content-digest': digest,
    });
    response.end(isHead ? undefined : bytes);
  }

  async answerBlob(text: string, request: QuarantineRequest, response: ServerResponse): Promise<void> {
    const listed = this.#subject.parsed.blobs.find(({ digest }) => digest === text);
    if (listed === undefined) return refuse(response, 404, 'BLOB_UNKNOWN');
    const { digest } = listed;
    let blob: QuarantineBlob | undefined;
    try {
      using _ = this.#patience.hold();
      blob = await this.#content.blob(digest);
    } catch (error) {
      this.#problems.set(digest, asError(error));
      return refuse(response, 502, 'UNAVAILABLE');
    }
    if (blob === undefined) return refuse(response, 404, 'BLOB_UNKNOWN');
    try {
      await this.#send(digest, blob, request, response);
    } finally {
      await blob.close();
    }
  }

  async #send(
    digest: Digest,
    blob: QuarantineBlob,
    { isHead, start }: QuarantineRequest,
    response: ServerResponse,
  ): Promise<void> {
    if (start > 0 && start >= blob.size) {
      response.setHeader('content-range', `bytes */${blob.size}`);
      return refuse(response, 416, 'RANGE_INVALID');
    }
    response.writeHead(start > 0 ? 206 : 200, {
      'content-type': 'application/octet-stream',
      'content-length': blob.size - start,
      'docker-content-digest': digest,
      ...(start > 0 ? { 'content-range': `bytes ${start}-${blob.size - 1}/${blob.size}` } : {}),
    });
    if (isHead) return void response.end();
    const { signal } = this.#over;
    // Of a reply that breaks off here the scanner has gone, or the content has failed, which is noted there.
    const isWhole = await pipeline(this.#counted(digest, blob.stream(start)), response, { signal }).then(
      () => true,
      () => false,
    );
    if (!isWhole) return;
    this.#problems.delete(digest);
    if (this.#missing.delete(digest) && this.#missing.size === 0) this.#patience.delivered();
  }

  /** Passes the bytes on. Counts only the waiting for them as ours: a scanner that does not read them uses its own time. */
  async *#counted(digest: Digest, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const iterator = chunks[Symbol.asyncIterator]();
    try {
      for (;;) {
        const hold = this.#patience.hold();
        const next = await iterator.next().finally(() => hold[Symbol.dispose]());
        if (next.done === true) return;
        yield next.value;
      }
    } catch (error) {
      this.#problems.set(digest, asError(error));
      throw error;
    } finally {
      await iterator.return?.();
    }
  }

  /** The token is worth nothing from now on, and replies that are under way break off. Idempotent. */
  [Symbol.dispose](): void {
    this.#leave(this);
    this.#over.abort();
  }
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('the content failed', { cause: error });
}
