/** Fetches images completely before a client asks for them: on demand, or on a schedule. */
import { randomUUID } from 'node:crypto';
import { ContentError, StorageError } from '../cache/store/errors.ts';
import type { Digest } from '../oci/digest.ts';
import { formatImageName } from '../oci/image-name.ts';
import { PolicyError, UndecidedError } from '../policy/errors.ts';
import type { RequestContext } from '../request-context.ts';
import type { Logger } from '../telemetry/log.ts';
import { UpstreamError } from '../upstream/errors.ts';
import { ImageError } from './errors.ts';
import { type EventSink, eventsOf } from './events.ts';
import { type AbortableContext, ImageWarmer, type ImageWarmerContext } from './image-warmer.ts';
import { inLanes } from './lanes.ts';
import { type RequestedImage, requestedImage, type UpstreamOf } from './requested-image.ts';

export interface WarmContext extends ImageWarmerContext {
  upstreamOf: UpstreamOf;
  logger: Logger;
}

export interface WarmRequest {
  /** Image names, as people write them. */
  images: readonly string[];
  /** Fetches only these platforms of an index; all if empty. */
  platforms: readonly string[];
  /** Fetches signatures, attestations and SBOMs too. */
  referrers: boolean;
}

export type WarmEvent =
  /** `totalBytes` grows while manifests are still being read. */
  | { event: 'progress'; image: string; bytes: number; totalBytes: number }
  | {
      event: 'image';
      image: string;
      outcome: 'done';
      digest: Digest;
      fetchedBytes: number;
      /** Bytes that were cached, or that another request was fetching already. */
      presentBytes: number;
    }
  /** `image` is the text of the request if that is not an image name. */
  | { event: 'image'; image: string; outcome: 'failed'; reason: string }
  | { event: 'done'; images: number; failed: number };

/** Keeps room for the pulls of clients: with four blobs for each image, at most twelve fetches run at the same time. */
const IMAGES_AT_A_TIME = 3;

export class Warmer {
  readonly #context: WarmContext;
  readonly #abort = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #scheduled = new Set<WarmRequest>();

  constructor(context: WarmContext) {
    this.#context = context;
  }

  /**
   * Starts with the first read. The work does not depend on how fast its events are read: it goes on until all images
   * are done, or the signal of `context` stops it.
   */
  begin(request: WarmRequest, context: RequestContext): AsyncGenerator<WarmEvent> {
    const signals = context.signal === undefined ? [] : [context.signal];
    const either = {
      ...context,
      background: true,
      signal: AbortSignal.any([...signals, this.#abort.signal]),
    };
    return eventsOf<WarmEvent>((sink) => {
      const running = this.#warm(request, either, sink).finally(() => this.#running.delete(running));
      this.#running.add(running);
      return running;
    });
  }

  /**
   * Does nothing while the mirror is sealed, or the same request is still running. Never rejects.
   *
   * @returns how many images came; undefined if nothing was done, or it stopped early
   */
  async runInBackground(request: WarmRequest): Promise<{ images: number; failed: number } | undefined> {
    if (this.#scheduled.has(request) || this.#context.sealed()) return undefined;
    this.#scheduled.add(request);
    return this.#drain(request).finally(() => this.#scheduled.delete(request));
  }

  /** Stops what is running, and waits for it. Idempotent. */
  async close(): Promise<void> {
    this.#abort.abort(new Error('the mirror is shutting down'));
    await Promise.allSettled(this.#running);
  }

  async #drain(request: WarmRequest): Promise<{ images: number; failed: number } | undefined> {
    const { logger } = this.#context;
    try {
      const context: RequestContext = { id: randomUUID(), identity: { kind: 'mirror' } };
      for await (const event of this.begin(request, context)) {
        if (event.event !== 'done') continue;
        logger.info(event, 'scheduled warming done');
        return { images: event.images, failed: event.failed };
      }
    } catch (error) {
      logger.warn({ err: error }, 'scheduled warming stopped early');
    }
    return undefined;
  }

  async #warm(request: WarmRequest, context: AbortableContext, sink: EventSink<WarmEvent>): Promise<void> {
    const { logger } = this.#context;
    let [images, failed] = [0, 0];
    await inLanes(new Set(request.images), IMAGES_AT_A_TIME, async (text) => {
      context.signal.throwIfAborted();
      let label = text;
      try {
        const image = requestedImage(text, this.#context.upstreamOf);
        label = formatImageName(image.name);
        const done = await this.#warmImage(image, label, request, context, sink);
        images += 1;
        logger.info(done, 'warmed');
        sink.push({ event: 'image', outcome: 'done', ...done });
      } catch (error) {
        if (!isExpected(error)) throw error;
        failed += 1;
        logger.warn({ err: error, image: label }, 'not warmed');
        sink.push({ event: 'image', image: label, outcome: 'failed', reason: error.message });
      }
    });
    sink.push({ event: 'done', images, failed });
  }

  async #warmImage(
    image: RequestedImage,
    label: string,
    request: WarmRequest,
    context: AbortableContext,
    sink: EventSink<WarmEvent>,
  ) {
    const report = (bytes: number, totalBytes: number) =>
      sink.progress(label, { event: 'progress', image: label, bytes, totalBytes });
    report(0, 0);
    using warmer = new ImageWarmer(this.#context, context, image, report);
    const digest = await warmer.run(request);
    const { fetchedBytes, presentBytes } = warmer;
    return { image: label, digest, fetchedBytes, presentBytes };
  }
}

function isExpected(error: unknown): error is Error {
  const expected = [ImageError, UpstreamError, ContentError, StorageError, PolicyError, UndecidedError];
  return expected.some((type) => error instanceof type);
}
