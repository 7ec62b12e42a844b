/**
 * The bytes of one blob from upstream, from some position to its end, however often the connection breaks.
 *
 * Yields what upstream says the bytes are; whether they are the right ones is for the reader to hash.
 */
import { ContentError } from '../../cache/store/errors.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { toUpstreamError, UpstreamError } from '../../upstream/errors.ts';
import type { FetchedBlob, Upstream } from '../../upstream/upstream.ts';

/** Attempts in a row that bring no byte before the fetch is given up. */
const MAX_FRUITLESS_ATTEMPTS = 4;
const BACKOFF_MS = 200;

export interface BlobFetchRequest {
  /** Its signal ends the fetch. */
  context: RequestContext;
  upstream: Upstream;
  repository: Repository;
  digest: Digest;
  /** Bytes of the whole blob, where a manifest says so. */
  expectedSize: number | undefined;
  /** Where to begin. */
  from: number;
  /** Where to end, exclusive; undefined: at the end of the blob. */
  to?: number;
}

export interface BlobFetchContext {
  metrics: Metrics;
  clock: Clock;
}

export class BlobFetch {
  /** Bytes of the whole blob; undefined if nobody tells before the end. */
  readonly size: number | undefined;
  /** Where {@link chunks} ends, exclusive: as asked for, or at the end of the blob if upstream ignored the range. */
  readonly end: number | undefined;
  readonly #request: BlobFetchRequest;
  readonly #context: BlobFetchContext;
  #position: number;
  #first: FetchedBlob | undefined;

  private constructor(
    request: BlobFetchRequest,
    context: BlobFetchContext,
    first: FetchedBlob | undefined,
    size: number | undefined,
  ) {
    this.#request = request;
    this.#context = context;
    this.#position = request.from;
    this.#first = first;
    this.size = size;
    this.end = first?.ranged === false ? size : (request.to ?? size);
  }

  /**
   * Sends the first request, and settles how long the blob is.
   *
   * @throws {UpstreamError}
   * @throws {ContentError} upstream's length is not the manifest's
   */
  static async start(request: BlobFetchRequest, context: BlobFetchContext): Promise<BlobFetch> {
    const { context: asker, upstream, repository, digest, expectedSize, from, to } = request;
    // Everything is here already, and a Range that begins at the end cannot be satisfied.
    if (from > 0 && from === expectedSize) return new BlobFetch(request, context, undefined, expectedSize);
    const first = await upstream.fetchBlob(asker, repository, digest, rangeOptions(from, to));
    try {
      if (expectedSize !== undefined && first.size !== undefined && first.size !== expectedSize) {
        throw new ContentError('size-mismatch', digest, expectedSize, first.size);
      }
      const size = expectedSize ?? first.size ?? (await upstream.headBlob(asker, repository, digest)).size;
      return new BlobFetch(request, context, first, size);
    } catch (error) {
      abandon(first);
      throw error;
    }
  }

  /** @throws {UpstreamError} upstream broke off and could not be resumed */
  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    const { context, upstream } = this.#request;
    const { signal } = context;
    let fruitless = 0;
    let blob = this.#first;
    this.#first = undefined;
    while (this.#position !== this.end) {
      const before = this.#position;
      try {
        blob ??= await this.#resume();
        yield* this.#read(blob);
        if (this.end === undefined) return; // then the end of the body is the only end there is
        if (this.#position !== this.end) {
          throw new UpstreamError('unavailable', upstream.name, 'the reply ended early');
        }
      } catch (error) {
        if (signal?.aborted === true) throw signal.reason;
        const failure = toUpstreamError(error, upstream.name);
        if (this.end === undefined || !isPassing(failure)) throw failure;
        fruitless = this.#position > before ? 0 : fruitless + 1;
        if (fruitless >= MAX_FRUITLESS_ATTEMPTS) throw failure;
        await this.#context.clock.sleep(backoff(fruitless), signal);
      } finally {
        if (blob !== undefined) abandon(blob);
        blob = undefined;
      }
    }
  }

  /** Lets go of a fetch whose {@link chunks} nobody reads any more. */
  close(): void {
    if (this.#first !== undefined) abandon(this.#first);
  }

  async #resume(): Promise<FetchedBlob> {
    const { context, upstream, repository, digest, to } = this.#request;
    this.#context.metrics.ingestResumes.inc({ upstream: upstream.name });
    // Asks the registry, not the redirect's target: that URL's signature may have expired.
    const blob = await upstream.fetchBlob(context, repository, digest, rangeOptions(this.#position, to));
    if (blob.size === undefined || blob.size === this.size) return blob;
    abandon(blob);
    const what = 'the length of a blob changed between two replies';
    throw new UpstreamError('invalid-response', upstream.name, what);
  }

  async *#read(blob: FetchedBlob): AsyncGenerator<Buffer, void, undefined> {
    let skip = this.#position - blob.start; // upstream may have ignored the Range
    for await (const chunk of blob.body as AsyncIterable<Buffer>) {
      const left = this.end === undefined ? Number.POSITIVE_INFINITY : this.end - this.#position;
      if (left === 0) return; // more than was asked for, or than there should be: the hash will tell
      const wanted = chunk.subarray(Math.min(skip, chunk.length), skip + left);
      skip = Math.max(0, skip - chunk.length);
      if (wanted.length === 0) continue;
      this.#position += wanted.length;
      yield wanted;
    }
  }
}

function rangeOptions(from: number, to: number | undefined) {
  return to === undefined ? { from } : { from, to };
}

/** Drops the connection of a reply that is not wanted to its end. */
function abandon(blob: FetchedBlob): void {
  blob.body.on('error', () => undefined).destroy();
}

function isPassing(error: UpstreamError): boolean {
  return error.code === 'unavailable' || error.code === 'timeout' || error.code === 'rate-limited';
}

function backoff(fruitless: number): number {
  return fruitless === 0 ? 0 : BACKOFF_MS * 2 ** (fruitless - 1) * (0.5 + Math.random());
}
