/** Reads blobs from an upstream. Resumes each time the connection breaks. */
import type { Clock } from '../../clock.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { toUpstreamError, UpstreamError } from '../../upstream/errors.ts';
import type { BandwidthShare } from '../../upstream/limits/bandwidth-share.ts';
import type { Bandwidth } from '../../upstream/limits/bandwidths.ts';
import type { FetchedBlob, Upstream } from '../../upstream/upstream.ts';
import type { BlobBytes, BlobBytesRequest, BlobOrigin } from './blob-origin.ts';

/** The fetch fails after this many attempts in a row without a byte. */
const MAX_FRUITLESS_ATTEMPTS = 4;
const BACKOFF_MS = 200;

export interface UpstreamOriginContext {
  metrics: Metrics;
  clock: Clock;
  /** At least 0, below 1. Spreads attempts, so that fills that broke together do not resume together. */
  random: () => number;
  bandwidth: Bandwidth;
}

export class UpstreamOrigin implements BlobOrigin {
  readonly #upstream: Upstream;
  readonly #context: UpstreamOriginContext;

  constructor(upstream: Upstream, context: UpstreamOriginContext) {
    this.#upstream = upstream;
    this.#context = context;
  }

  get name(): string {
    return this.#upstream.name;
  }

  openShare(): BandwidthShare {
    return this.#context.bandwidth.openShare();
  }

  async open(request: BlobBytesRequest): Promise<BlobBytes> {
    const { context, repository, digest, expectedSize, from, to } = request;
    const first = await this.#upstream.fetchBlob(context, repository, digest, rangeOptions(from, to));
    request.onSource?.(first.source);
    try {
      const isKnown = first.size !== undefined || expectedSize !== undefined;
      const size = isKnown ? first.size : (await this.#upstream.headBlob(context, repository, digest)).size;
      return new UpstreamBytes(this.#upstream, request, this.#context, first, size);
    } catch (error) {
      abandon(first);
      throw error;
    }
  }
}

class UpstreamBytes implements BlobBytes {
  readonly size: number | undefined;
  readonly end: number | undefined;
  readonly #upstream: Upstream;
  readonly #request: BlobBytesRequest;
  readonly #context: UpstreamOriginContext;
  #position: number;
  #first: FetchedBlob | undefined;

  constructor(
    upstream: Upstream,
    request: BlobBytesRequest,
    context: UpstreamOriginContext,
    first: FetchedBlob,
    size: number | undefined,
  ) {
    this.#upstream = upstream;
    this.#request = request;
    this.#context = context;
    this.#position = request.from;
    this.#first = first;
    this.size = size;
    this.end = endOf(request, first, size);
  }

  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    const { signal } = this.#request.context;
    let fruitless = 0;
    let blob = this.#first;
    this.#first = undefined;
    while (this.#position !== this.end) {
      const before = this.#position;
      try {
        blob ??= await this.#resume();
        yield* this.#read(blob);
        if (this.end === undefined) return; // the size is unknown: the body ends with the blob
        if (this.#position !== this.end)
          throw new UpstreamError('unavailable', this.#upstream.name, 'the reply ended early');
      } catch (error) {
        if (signal?.aborted === true) throw signal.reason;
        const failure = toUpstreamError(error, this.#upstream.name);
        if (!isPassing(failure)) throw failure;
        // A place of the fleet that fails is no attempt at upstream: it is not asked again and again.
        fruitless = this.#position > before || blob?.source !== undefined ? 0 : fruitless + 1;
        if (fruitless >= MAX_FRUITLESS_ATTEMPTS) throw failure;
        await this.#context.clock.sleep(backoff(fruitless, this.#context.random), signal);
      } finally {
        if (blob !== undefined) abandon(blob);
        blob = undefined;
      }
    }
  }

  close(): void {
    if (this.#first !== undefined) abandon(this.#first);
  }

  async #resume(): Promise<FetchedBlob> {
    const { context, repository, digest, to } = this.#request;
    this.#context.metrics.ingestResumes.inc({ upstream: this.#upstream.name });
    // Asks the registry again and not the target of its redirect: the signature in that URL may have expired.
    const range = rangeOptions(this.#position, to);
    const blob = await this.#upstream.fetchBlob(context, repository, digest, range);
    this.#request.onSource?.(blob.source);
    if (blob.size === undefined || this.size === undefined || blob.size === this.size) return blob;
    abandon(blob);
    const what = 'the length of a blob changed between two replies';
    throw new UpstreamError('invalid-response', this.#upstream.name, what);
  }

  async *#read(blob: FetchedBlob): AsyncGenerator<Buffer, void, undefined> {
    let skip = this.#position - blob.start; // upstream may have ignored the Range
    for await (const chunk of blob.body as AsyncIterable<Buffer>) {
      const left = this.end === undefined ? Number.POSITIVE_INFINITY : this.end - this.#position;
      if (left === 0) return; // ignores bytes after the end: the hash shows whether the others are right
      const wanted = chunk.subarray(Math.min(skip, chunk.length), skip + left);
      skip = Math.max(0, skip - chunk.length);
      this.#context.metrics.fillBytes.inc({ source: blob.source?.name ?? 'upstream' }, wanted.length);
      const { share } = this.#request;
      // The limit is one of upstreams: what comes from the fleet has none.
      if (blob.source === undefined && share?.isFree === false)
        yield* this.#limited(wanted, chunk.length - wanted.length, share);
      else if (wanted.length > 0) {
        this.#position += wanted.length;
        yield wanted;
      }
    }
  }

  /**
   * Passes on the bytes that are `wanted`, when they may pass. Until then nothing is read: the connection is paused, which
   * reaches upstream.
   *
   * @param unwanted bytes that have come with them, and count as well
   */
  async *#limited(
    wanted: Buffer,
    unwanted: number,
    share: BandwidthShare,
  ): AsyncGenerator<Buffer, void, undefined> {
    const { signal } = this.#request.context;
    for (let left = unwanted; left > 0; ) left -= await share.take(left, signal);
    for (let rest = wanted; rest.length > 0; ) {
      const piece = rest.subarray(0, await share.take(rest.length, signal));
      rest = rest.subarray(piece.length);
      this.#position += piece.length;
      yield piece;
    }
  }
}

function endOf(
  { to }: BlobBytesRequest,
  { ranged }: FetchedBlob,
  size: number | undefined,
): number | undefined {
  if (!ranged || to === undefined) return size;
  return size === undefined ? to : Math.min(to, size);
}

function rangeOptions(from: number, to: number | undefined) {
  return to === undefined ? { from } : { from, to };
}

/** Drops the connection of a reply that is not read to its end. */
function abandon(blob: FetchedBlob): void {
  blob.body.on('error', () => undefined).destroy();
}

function isPassing(error: UpstreamError): boolean {
  return error.code === 'unavailable' || error.code === 'timeout' || error.code === 'rate-limited';
}

function backoff(fruitless: number, random: () => number): number {
  return fruitless === 0 ? 0 : BACKOFF_MS * 2 ** (fruitless - 1) * (0.5 + random());
}
