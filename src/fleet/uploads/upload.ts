/** Writes one object of this node into the fleet's object store. */
import { Readable } from 'node:stream';
import type { ContentCache } from '../../cache/catalog/content-cache.ts';
import type { IndexStore, TagKey } from '../../cache/index/index-store.ts';
import type { ContentReader } from '../../cache/store/content-store.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../oci/digest.ts';
import { parseManifest } from '../../oci/manifest.ts';
import type { Engine } from '../engines/engine.ts';
import type { Uses } from '../eviction/uses.ts';
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
  /** The version that is in the store in place of a digest and was found wrong. Undefined: none was. */
  wrongVersion: (digest: Digest) => string | undefined;
  /** Undefined: nodes do not agree on who uploads what. */
  leases: Pick<Leases, 'claim' | 'use'> | undefined;
  /** Undefined: nothing leaves the store. */
  uses: Pick<Uses, 'note' | 'revive'> | undefined;
}

/** `busy`: another node is at it. `gone`: there is nothing to upload any more. */
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
   * @param wasBusy the last try found another node at it
   * @throws {EngineError} it could not be written @throws {StorageError} it cannot be read here
   */
  write(job: UploadJob, wasBusy: boolean, signal: AbortSignal): Promise<UploadResult> {
    switch (job.kind) {
      case 'content':
        return this.#turn(job.name, job.digest, wasBusy, signal);
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
  async #turn(name: string, digest: Digest, wasBusy: boolean, signal: AbortSignal): Promise<UploadResult> {
    const { leases, uses } = this.#context;
    if (leases === undefined) return this.#content(name, digest, signal);
    const stays = async () => uses === undefined || uses.revive(digest);
    if (wasBusy && (await this.#isThere(name, signal)) && (await stays())) return { note: '' };
    if ((await leases.claim(UPLOAD, digest)).kind === 'theirs') return 'busy';
    const over = leases.use(UPLOAD, digest);
    try {
      if (!(await stays())) return 'busy';
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
    const { cache } = this.#context;
    const reader = await cache.open(digest);
    if (reader === undefined) return 'gone'; // it was removed meanwhile
    try {
      const { size } = reader;
      const sha256 = digestAlgorithm(digest) === 'sha256' ? { sha256: digestHex(digest) } : {};
      const open = () => Readable.from(this.#bytes(reader, signal), { objectMode: false });
      const content = { size, ...sha256, open };
      const wrong = this.#context.wrongVersion(digest);
      const isReplaced =
        wrong !== undefined &&
        (await this.#put(name, content, wrong === '' ? {} : { onlyIf: { etag: wrong } }, signal)) !==
          'present';
      // What is there was written whole, and its digest had matched: it need not be sent again.
      if (!isReplaced) await this.#put(name, content, { onlyIf: 'absent' }, signal);
      return { note: '' };
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
    const listed = [...parsed.manifests, ...parsed.blobs];
    const lists = listed.map((one) => [one.digest, one.size]);
    const record = await writeRecord(secret, name, { mediaType, size: bytes.length, lists });
    await this.#put(name, contentOf(record), {}, signal);
    this.#context.uses?.note([digest, ...listed.map((one) => one.digest)]);
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
