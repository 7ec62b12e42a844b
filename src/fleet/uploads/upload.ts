/** Writes one object of this node into the fleet's object store. */
import { Readable } from 'node:stream';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { IndexStore, TagKey } from '../../cache/index/index-store.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../oci/digest.ts';
import { parseManifest } from '../../oci/manifest.ts';
import type { Engine } from '../engines/engine.ts';
import { type Leases, UPLOAD } from '../nodes/leases.ts';
import type {
  ListedObject,
  ObjectContent,
  ObjectStore,
  PutOptions,
  WrittenObject,
} from '../objects/object-store.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { writeRecord } from '../records/signed-record.ts';

export type UploadJob = {
  /** Of the object. */
  name: string;
  /** Bytes of content; 0 for a record. */
  size: number;
} & (
  | { kind: 'content'; digest: Digest }
  /** A repository may serve this manifest. */
  | { kind: 'manifest'; digest: Digest }
  /** What a tag means. */
  | { kind: 'tag'; key: TagKey }
);

export interface UploadContext {
  objects: ObjectStore;
  engine: Engine;
  secret: FleetSecret;
  index: IndexStore;
  cache: ContentCache;
  /** Media type of a stored manifest; undefined if it is not stored, or is none. */
  mediaTypeOf: (digest: Digest) => Promise<string | undefined>;
  /** Waits until some bytes may be sent. @returns how many, at most `wanted` */
  pace: (wanted: number, signal: AbortSignal) => Promise<number>;
  /** Whether what is in the store in place of a digest was found wrong. */
  isWrong: (digest: Digest) => boolean;
  /** Undefined: nodes do not agree on who uploads what. */
  leases: Pick<Leases, 'claim' | 'use'> | undefined;
}

/**
 * `note`: see {@link IndexStore.object}. `busy`: another node is at it. `gone`: there is nothing to upload any more.
 */
export type UploadResult = { note: string } | 'busy' | 'gone';

const PIECE_BYTES = 1024 * 1024;
/** The answer to an upload comes after its last byte. A connection that is slower than this is broken. */
const LEAST_BYTES_PER_MS = 64;
const ANSWER_MS = 30_000;

export class Upload {
  readonly #context: UploadContext;

  constructor(context: UploadContext) {
    this.#context = context;
  }

  /**
   * @param mayBeThere the last try found another node at it, or failed: a store may break off who sends what it has
   * @throws {EngineError} it could not be written @throws {StorageError} it cannot be read here
   */
  write(job: UploadJob, mayBeThere: boolean, signal: AbortSignal): Promise<UploadResult> {
    switch (job.kind) {
      case 'content':
        return this.#turn(job.name, job.digest, mayBeThere, signal);
      case 'manifest':
        return this.#manifest(job.name, job.digest, signal);
      case 'tag':
        return this.#tag(job.name, job.key, signal);
    }
  }

  list(prefix: string, signal: AbortSignal): AsyncIterable<ListedObject[]> {
    return this.#context.objects.list(prefix, signal);
  }

  /** Of nodes that have the same content, one uploads it, and the others see that it is there. */
  async #turn(name: string, digest: Digest, mayBeThere: boolean, signal: AbortSignal): Promise<UploadResult> {
    const { leases } = this.#context;
    const isToBeWritten = !mayBeThere || this.#context.isWrong(digest);
    if (!isToBeWritten && (await this.#isThere(name, signal))) return { note: '' };
    if (leases === undefined) return this.#content(name, digest, signal);
    if ((await leases.claim(UPLOAD, digest)).kind === 'theirs') return 'busy';
    const over = leases.use(UPLOAD, digest);
    try {
      return await this.#content(name, digest, signal);
    } finally {
      over();
    }
  }

  async #isThere(name: string, closing: AbortSignal): Promise<boolean> {
    const { objects, engine } = this.#context;
    const found = await engine.ask('get', ANSWER_MS, (deadline) =>
      objects.get(name, { from: 0, to: 1, signal: AbortSignal.any([deadline, closing]) }),
    );
    found?.body.on('error', () => undefined).destroy();
    return found !== undefined;
  }

  async #content(name: string, digest: Digest, signal: AbortSignal): Promise<UploadResult> {
    const { cache, isWrong } = this.#context;
    const reader = await cache.open(digest);
    if (reader === undefined) return 'gone'; // it was removed meanwhile
    try {
      const { size } = reader;
      const sha256 = digestAlgorithm(digest) === 'sha256' ? { sha256: digestHex(digest) } : {};
      const open = () => Readable.from(this.#bytes(reader, signal), { objectMode: false });
      // What is there was written whole, and its digest had matched: it need not be sent again.
      const written = await this.#put(
        name,
        { size, ...sha256, open },
        isWrong(digest) ? {} : { onlyIf: 'absent' },
        signal,
      );
      return { note: written === 'present' ? '' : written.etag };
    } finally {
      await reader.close();
    }
  }

  async #manifest(name: string, digest: Digest, signal: AbortSignal): Promise<UploadResult> {
    const { cache, mediaTypeOf, secret } = this.#context;
    const mediaType = await mediaTypeOf(digest);
    const bytes = mediaType === undefined ? undefined : await cache.read(digest);
    const parsed = bytes && parseManifest(bytes, mediaType ?? '');
    if (bytes === undefined || parsed === undefined) return 'gone';
    const lists = [...parsed.manifests, ...parsed.blobs].map((listed) => [listed.digest, listed.size]);
    const record = await writeRecord(secret, name, { mediaType, size: bytes.length, lists });
    await this.#put(name, contentOf(record), {}, signal);
    return { note: '' };
  }

  async #tag(name: string, key: TagKey, signal: AbortSignal): Promise<UploadResult> {
    const tag = await this.#context.index.tag(key);
    if (tag === undefined) return 'gone';
    const { digest, mediaType, size } = tag;
    const record = await writeRecord(this.#context.secret, name, { digest, mediaType, size });
    await this.#put(name, contentOf(record), {}, signal);
    return { note: digest };
  }

  async #put(
    name: string,
    content: ObjectContent,
    condition: Pick<PutOptions, 'onlyIf'>,
    closing: AbortSignal,
  ): Promise<WrittenObject | 'present'> {
    const { objects, engine } = this.#context;
    const deadlineMs = ANSWER_MS + content.size / LEAST_BYTES_PER_MS;
    return engine.ask('put', deadlineMs, (deadline) =>
      objects.put(name, content, { ...condition, signal: AbortSignal.any([deadline, closing]) }),
    );
  }

  async *#bytes(reader: ContentReader, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    for (let at = 0; at < reader.size; ) {
      const wanted = await this.#context.pace(Math.min(PIECE_BYTES, reader.size - at), signal);
      const piece = Buffer.allocUnsafeSlow(wanted);
      const read = await reader.read(piece, at, at + wanted);
      at += read;
      yield piece.subarray(0, read);
    }
  }
}

function contentOf(bytes: Buffer): ObjectContent {
  return { size: bytes.length, open: () => Readable.from([bytes], { objectMode: false }) };
}
