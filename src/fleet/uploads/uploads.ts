/**
 * Brings what this node has into the fleet's object store: in the background, a few at a time, within a limit, again and
 * again until it is there.
 *
 * Which objects are there is noted in the index. What waits is everything that this node has and that is not noted, so
 * that no queue can be lost: a start finds it again, and so does a mirror that joins with a full disk.
 */
import type { Catalog } from '../../cache/catalog/catalog.ts';
import type { IndexChange, IndexStore, RepositoryKey, TagKey } from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { EngineError } from '../engines/errors.ts';
import {
  CONTENT_PREFIX,
  contentDigest,
  contentName,
  manifestName,
  type SharedRepository,
  tagName,
} from '../objects/names.ts';
import type { Upload, UploadJob } from './upload.ts';

export interface UploadsContext {
  /** This node's own. */
  index: IndexStore;
  catalog: Catalog;
  /** Writes one object. */
  upload: Upload;
  sharedRepository: (key: RepositoryKey) => Promise<SharedRepository | undefined>;
  /** Called when a digest is in the store, or need not be written any more. */
  onUploaded: (digest: Digest) => void;
  clock: Clock;
  random: () => number;
  logger: Logger;
  metrics: Metrics;
}

const AT_A_TIME = 2;
/** The search for what is not noted waits while more than this is found. */
const QUEUE_ENOUGH = 1_000;
/** With fewer, writing them costs less than a list of the whole store. */
const WORTH_A_LIST = 20;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
/** Until what other nodes are at is looked at again. */
const BUSY_MS = 250;

export class Uploads {
  readonly #context: UploadsContext;
  readonly #waiting = new Map<string, UploadJob>();
  /** Of those that wait: the names of what another node is at, or may have written, because this one failed to. */
  readonly #busy = new Set<string>();
  readonly #running = new Set<string>();
  readonly #closing = new AbortController();
  readonly #workers: Promise<void>[] = [];
  /** Changes of the index that are being looked at. */
  #taking = 0;
  /** Resolves when something has changed: there is more to do, or less. */
  #changed = Promise.withResolvers<void>();
  #pauseMs = 0;
  #searching = false;

  constructor(context: UploadsContext) {
    this.#context = context;
  }

  /** Begins, with what was left when the node stopped. */
  start(): void {
    this.#searching = true;
    const search = this.#search().catch((error: unknown) =>
      this.#context.logger.warn(
        { err: error },
        'what is missing in the object store could not be looked for',
      ),
    );
    const searched = search.finally(() => {
      this.#searching = false;
      this.#signal();
    });
    this.#workers.push(searched, ...Array.from({ length: AT_A_TIME }, () => this.#work()));
  }

  /** Whether a digest is still to be written. */
  isWaiting(digest: Digest): boolean {
    const name = contentName(digest);
    return this.#waiting.has(name) || this.#running.has(name);
  }

  /** Objects that are not in the store yet, as far as they have been looked for. */
  get waiting(): number {
    return this.#waiting.size + this.#running.size + this.#taking;
  }

  /** Takes over what has been written to the index of this node. */
  written(changes: readonly IndexChange[]): void {
    if (this.#workers.length === 0) return; // the start will find it
    this.#taking += 1;
    void this.#take(changes)
      .catch((error: unknown) => this.#context.logger.warn({ err: error }, 'an upload could not be noted'))
      .finally(() => {
        this.#taking -= 1;
        this.#signal();
      });
  }

  /** Notes that an object is in the store. @param etag of a version that is known to be right */
  found(name: string, etag = ''): void {
    void this.#note(name, etag).catch(() => undefined); // looked for again at the next start
  }

  /** Forgets that a digest is in the store. @param size its bytes, if it is here and is to be written once more */
  missing(digest: Digest, size?: number): void {
    const name = contentName(digest);
    void this.#context.index
      .object(name)
      .then((noted) =>
        noted === undefined ? undefined : this.#context.index.write([{ delete: 'object', name }]),
      )
      .then(() => (size === undefined ? undefined : this.#addContent(digest, size)))
      .catch(() => undefined); // as above
  }

  /** Goes on until nothing waits, or until `timeoutMs` have passed, and then stops. Idempotent. */
  async close(timeoutMs: number): Promise<void> {
    const { clock } = this.#context;
    const over = new AbortController();
    const late = clock.sleep(timeoutMs, over.signal).then(
      () => true,
      () => true,
    );
    while ((this.waiting > 0 || this.#searching) && this.#pauseMs === 0) {
      if (await Promise.race([late, this.#changed.promise.then(() => false)])) break;
    }
    over.abort();
    this.#closing.abort(new Error('the mirror is shutting down'));
    this.#signal();
    await Promise.all(this.#workers);
  }

  async #take(changes: readonly IndexChange[]): Promise<void> {
    for (const change of changes) {
      if ('delete' in change) continue;
      if (change.put === 'content') await this.#addContent(change.digest, change.value.size);
      else if (change.put === 'permission' && change.value.expanded === true)
        await this.#addManifest(change.key, change.digest);
      else if (change.put === 'tag') await this.#addTag(change.key, change.value.digest);
    }
  }

  async #addContent(digest: Digest, size: number): Promise<void> {
    const name = contentName(digest);
    if ((await this.#context.index.object(name)) === undefined)
      this.#add({ kind: 'content', name, digest, size });
  }

  async #addManifest(key: RepositoryKey, digest: Digest): Promise<void> {
    const repository = await this.#context.sharedRepository(key);
    if (repository === undefined) return;
    const name = manifestName(repository, digest);
    if ((await this.#context.index.object(name)) === undefined)
      this.#add({ kind: 'manifest', name, digest, size: 0 });
  }

  async #addTag(key: TagKey, digest: Digest): Promise<void> {
    const repository = await this.#context.sharedRepository(key);
    if (repository === undefined) return;
    const name = tagName(repository, key.tag, key.accept);
    if ((await this.#context.index.object(name)) !== digest) this.#add({ kind: 'tag', name, key, size: 0 });
  }

  #add(job: UploadJob): void {
    if (this.#closing.signal.aborted) return;
    this.#waiting.set(job.name, job);
    this.#signal();
  }

  #signal(): void {
    let bytes = 0;
    for (const { size } of this.#waiting.values()) bytes += size;
    this.#context.metrics.uploadQueueBytes.set({ engine: 'objects' }, bytes);
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #work(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const job = this.#next();
      if (job === undefined) {
        await this.#changed.promise;
        continue;
      }
      try {
        await this.#upload(job, signal);
      } catch (error) {
        if (!signal.aborted) this.#failed(job, error);
      } finally {
        this.#running.delete(job.name);
        this.#signal();
      }
      if (this.#pauseMs > 0) await this.#pause();
    }
  }

  async #upload(job: UploadJob, signal: AbortSignal): Promise<void> {
    const { upload, clock, onUploaded } = this.#context;
    const result = await upload.write(job, this.#busy.delete(job.name), signal);
    this.#pauseMs = 0;
    if (result === 'busy') {
      this.#busy.add(job.name);
      if (!this.#waiting.has(job.name)) this.#waiting.set(job.name, job); // behind all others
      if (this.#busy.size >= this.#waiting.size) await clock.sleep(BUSY_MS, signal);
      return;
    }
    if (result !== 'gone') await this.#note(job.name, result.note);
    if (job.kind === 'content') onUploaded(job.digest);
  }

  #next(): UploadJob | undefined {
    for (const [name, job] of this.#waiting) {
      if (this.#running.has(name)) continue; // it has changed again meanwhile
      this.#waiting.delete(name);
      this.#running.add(name);
      return job;
    }
    return undefined;
  }

  #failed(job: UploadJob, error: unknown): void {
    const { logger } = this.#context;
    // Only what the store says of itself passes by itself. Everything else would fail for ever.
    if (!(error instanceof EngineError) || error.code === 'invalid-response') {
      logger.error(
        { err: error, object: job.name },
        'an object cannot be uploaded, and waits for the next start',
      );
      return;
    }
    if (!this.#waiting.has(job.name)) this.#waiting.set(job.name, job);
    this.#busy.add(job.name);
    this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, FIRST_PAUSE_MS), LONGEST_PAUSE_MS);
  }

  async #pause(): Promise<void> {
    const { clock, random } = this.#context;
    await clock.sleep(this.#pauseMs * (0.5 + random() / 2), this.#closing.signal).catch(() => undefined); // it closes
  }

  async #note(name: string, value: string): Promise<void> {
    const { index } = this.#context;
    // Which version is right is more than that there is one.
    if (value === '' && (await index.object(name)) !== undefined) return;
    await index.write([{ put: 'object', name, value }]);
  }

  /** Looks for what this node has and has not noted. */
  async #search(): Promise<void> {
    const { index, catalog } = this.#context;
    const unknown = new Map<Digest, number>();
    for await (const batch of index.contents())
      for (const [digest, { size }] of batch)
        if ((await index.object(contentName(digest))) === undefined) unknown.set(digest, size);
    if (unknown.size > WORTH_A_LIST) await this.#learn(unknown);
    for (const [digest, size] of unknown) {
      await this.#addContent(digest, size);
      await this.#roomInQueue();
    }
    for await (const [digest] of catalog.manifests()) {
      for await (const [key, { expanded }] of index.permissions(digest))
        if (expanded === true) await this.#addManifest(key, digest);
      await this.#roomInQueue();
    }
    for await (const [key, { digest, isUnconfirmed }] of index.tags()) {
      if (isUnconfirmed !== true) await this.#addTag(key, digest);
      await this.#roomInQueue();
    }
  }

  /** Notes what the store has already. One request tells of a thousand objects. */
  async #learn(unknown: Map<Digest, number>): Promise<void> {
    for await (const page of this.#context.upload.list(CONTENT_PREFIX, this.#closing.signal)) {
      for (const { name, size } of page) {
        const digest = contentDigest(name);
        if (digest === undefined || unknown.get(digest) !== size) continue;
        await this.#note(name, ''); // nobody here has read it
        unknown.delete(digest);
      }
    }
  }

  async #roomInQueue(): Promise<void> {
    while (this.#waiting.size >= QUEUE_ENOUGH && !this.#closing.signal.aborted) await this.#changed.promise;
    this.#closing.signal.throwIfAborted();
  }
}
