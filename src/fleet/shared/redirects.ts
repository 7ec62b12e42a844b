/**
 * Sends clients to the object store for blobs that this node has, so that their bytes leave the store and not this node.
 *
 * Nobody but the client itself checks those bytes. So it is sent only to a version of the object that this node has
 * uploaded, or has read whole and found right, and that was still there at most a minute ago.
 */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { IndexStore } from '../../cache/index/index-store.ts';
import { StorageError } from '../../cache/store/errors.ts';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../oci/digest.ts';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import { contentName } from '../objects/names.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { FIRST_BYTE_MS, type SharedStore } from './shared-store.ts';

export interface RedirectsContext {
  objects: ObjectStore;
  engine: Engine;
  store: SharedStore;
  /** See {@link IndexStore.object}. */
  noted: IndexStore['object'];
  /** Called with the ETag of an object that was read whole and found right. */
  onRight: (name: string, etag: string) => void;
  /** Called with what is gone from the store, or wrong there. @param size bytes */
  onLost: (digest: Digest, size: number) => void;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

/** What is in the store now. */
interface Seen {
  etag: string;
  url: string;
  /** Milliseconds since the epoch. */
  at: number;
}

/** How long an answer of the store counts. */
const SEEN_LASTS_MS = 60_000;
const REMEMBERED = 10_000;
const URL_LASTS_MS = 15 * 60_000;
const NOT_REDIRECTED = ['absent', 'unverified', 'unavailable'] as const;

export class Redirects {
  readonly #context: RedirectsContext;
  readonly #seen = new LRUCache<Digest, Seen>({ max: REMEMBERED });
  readonly #looks = new SingleFlight<Seen | undefined>();
  readonly #closing = new AbortController();
  /** One at a time: it reads as much as clients would. */
  #verifying: Promise<void> | undefined;

  constructor(context: RedirectsContext) {
    this.#context = context;
    for (const result of ['redirected', ...NOT_REDIRECTED]) context.metrics.fleetRedirects.inc({ result }, 0);
  }

  /**
   * @param size bytes of the blob
   * @returns a URL of the blob, which must get into no log. Undefined: the blob is to be sent from here. Never rejects
   *   because of the store
   */
  async urlOf(digest: Digest, size: number): Promise<string | undefined> {
    const found = await this.#find(digest, size);
    const [result, url] = typeof found === 'string' ? [found] : ['redirected', found.url];
    this.#context.metrics.fleetRedirects.inc({ result });
    return url;
  }

  /** Stops reading. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the mirror is shutting down'));
    await this.#verifying;
  }

  async #find(digest: Digest, size: number): Promise<Seen | (typeof NOT_REDIRECTED)[number]> {
    const { noted, store } = this.#context;
    try {
      const etag = await noted(contentName(digest));
      if (etag === undefined) return 'absent';
      if (!store.trusts(digest)) return 'unavailable';
      const seen =
        this.#lately(digest) ?? (await this.#looks.run(digest, () => this.#look(digest, size)).result);
      if (seen === undefined) return 'absent';
      if (etag !== '' && seen.etag === etag) return seen;
      if (seen.etag !== '') this.#verify(digest, size);
      return 'unverified';
    } catch (error) {
      if (error instanceof EngineError || error instanceof StorageError) return 'unavailable';
      throw error;
    }
  }

  #lately(digest: Digest): Seen | undefined {
    const { engine, clock } = this.#context;
    const seen = this.#seen.get(digest);
    const counts = seen !== undefined && Math.abs(clock.now() - seen.at) < SEEN_LASTS_MS;
    return counts && engine.trouble === undefined ? seen : undefined;
  }

  /** Asks for the first byte, as the client will: a HEAD would not tell that an object is archived. */
  async #look(digest: Digest, size: number): Promise<Seen | undefined> {
    const { objects, engine, clock, onLost } = this.#context;
    const name = contentName(digest);
    this.#seen.delete(digest);
    const at = clock.now();
    const seen = await engine.ask('get', FIRST_BYTE_MS, async (signal) => {
      const found = await objects.get(name, { from: 0, to: 1, signal });
      if (found === undefined) return undefined;
      found.body.on('error', () => undefined).destroy();
      return { etag: found.etag, url: await objects.presign(name, { forMs: URL_LASTS_MS, signal }), at };
    });
    if (seen === undefined) onLost(digest, size);
    else this.#seen.set(digest, seen);
    return seen;
  }

  /** Begins to read an object whole in the background, so that later requests can be redirected to it. */
  #verify(digest: Digest, size: number): void {
    const { logger } = this.#context;
    if (this.#verifying !== undefined || this.#closing.signal.aborted) return;
    this.#verifying = this.#readWhole(digest, size)
      .catch((error: unknown) => {
        // What the engine has said is logged by it. A later request tries again.
        if (!(error instanceof EngineError) && !this.#closing.signal.aborted)
          logger.warn({ err: error, digest }, 'an object could not be verified');
      })
      .finally(() => {
        this.#verifying = undefined;
      });
  }

  async #readWhole(digest: Digest, size: number): Promise<void> {
    const { store, logger, metrics, onRight, onLost } = this.#context;
    const found = await store.open(digest, {}, this.#closing.signal);
    if (found === undefined) return;
    this.#seen.delete(digest); // it may be of an older version
    const hash = createHash(digestAlgorithm(digest));
    for await (const chunk of found.body as AsyncIterable<Buffer>) hash.update(chunk);
    if (hash.digest('hex') === digestHex(digest)) return onRight(contentName(digest), found.etag);
    logger.error({ digest }, 'an object in the store has not the bytes of its digest, and is replaced');
    metrics.contentRejected.inc({ upstream: 'fleet store', reason: 'digest-mismatch' });
    store.distrust(digest);
    onLost(digest, size);
  }
}
