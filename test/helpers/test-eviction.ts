/** A bucket with images, and nodes that evict from it. Their clocks stand still; the coordinator's moves with {@link TestEviction.pass}. */
import type { TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { USE_TIMES } from '../../src/fleet/coordinator/coordinator.ts';
import { Engine } from '../../src/fleet/engines/engine.ts';
import { Eviction } from '../../src/fleet/eviction/eviction.ts';
import { contentDigest, contentName, manifestName, tagName } from '../../src/fleet/objects/names.ts';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { writeRecord } from '../../src/fleet/records/signed-record.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import type { Repository, Tag } from '../../src/oci/reference.ts';
import { cleanUp } from './cleanup.ts';
import { MemoryCoordinator } from './memory-coordinator.ts';
import { ScriptedBucket } from './scripted-bucket.ts';
import { testNode } from './test-node.ts';

export const PREFIX = 'millpond/';
const REPOSITORY = { upstream: 'a'.repeat(32), repository: 'org/app' as Repository };
const BLOB_BYTES = 1_000;

export interface StoredImage {
  manifest: Digest;
  blobs: Digest[];
}

type Node = Awaited<ReturnType<typeof testNode>>;

export class TestEviction {
  readonly bucket: ScriptedBucket;
  readonly coordinator = new MemoryCoordinator();
  readonly #t: TestContext;
  #writer: Node | undefined;

  private constructor(t: TestContext, bucket: ScriptedBucket) {
    this.#t = t;
    this.bucket = bucket;
    this.coordinator.now = Date.now();
    bucket.now = () => this.coordinator.now;
  }

  static async start(t: TestContext): Promise<TestEviction> {
    const fleet = new TestEviction(t, await ScriptedBucket.start(t));
    fleet.#writer = await testNode(t, 'writer', { coordinator: fleet.coordinator });
    return fleet;
  }

  /** Lets time pass for all, and ends the lease of the last look. */
  pass(ms: number): void {
    this.coordinator.now += ms;
    this.coordinator.held.clear();
  }

  passUntilRemoved(): void {
    this.pass(USE_TIMES.leavingMs);
  }

  /** Bytes of content in the bucket. */
  get bytes(): number {
    const content = [...this.bucket.objects].filter(([name]) => name.startsWith(`${PREFIX}blobs/`));
    return content.reduce((sum, [, stored]) => sum + stored.bytes.length, 0);
  }

  has(digest: Digest): boolean {
    return this.bucket.objects.has(PREFIX + contentName(digest));
  }

  names(part = ''): string[] {
    return [...this.bucket.objects.keys()].filter((name) => name.includes(part));
  }

  put(name: string, bytes: Buffer): void {
    this.bucket.objects.set(PREFIX + name, { bytes, writtenAt: new Date(0) });
  }

  /** Writes content that is used now. */
  async content(seed: string, size = BLOB_BYTES): Promise<Digest> {
    const bytes = Buffer.alloc(size, seed);
    const digest = digestOf(bytes);
    this.put(contentName(digest), bytes);
    await this.coordinator.uses.use([digest]);
    return digest;
  }

  /** Writes an image with its records, which is used now. @param blobs that it lists; default: two of its own */
  async image(tag: string, blobs?: Digest[]): Promise<StoredImage> {
    const listed = blobs ?? [await this.content(`${tag} 1`), await this.content(`${tag} 2`)];
    return { manifest: await this.manifest(tag, listed), blobs: listed };
  }

  /** Writes a manifest with its record and a tag that means it. */
  async manifest(tag: string, listed: readonly Digest[]): Promise<Digest> {
    const digest = await this.content(`manifest ${tag}`);
    await this.recordOf(digest, listed);
    await this.record(tagName(REPOSITORY, tag as Tag, ''), { digest, mediaType: 'm', size: BLOB_BYTES });
    return digest;
  }

  async recordOf(manifest: Digest, listed: readonly Digest[]): Promise<void> {
    const lists = listed.map((one) => [one, BLOB_BYTES]);
    await this.record(manifestName(REPOSITORY, manifest), { mediaType: 'm', size: BLOB_BYTES, lists });
  }

  async record(name: string, value: object): Promise<void> {
    if (this.#writer !== undefined) this.put(name, await writeRecord(this.#writer.secret, name, value));
  }

  /** A node that keeps the store within `maxBytes`. */
  async node(
    maxBytes: number,
    options: { isSealed?: () => boolean; coordinator?: MemoryCoordinator } = {},
  ): Promise<{ node: Node; eviction: Eviction; look: () => Promise<void> }> {
    const node = await testNode(this.#t, 'node', { coordinator: options.coordinator ?? this.coordinator });
    const objects = new S3Store({
      ...{
        bucket: 'millpond',
        endpoint: this.bucket.url,
        region: 'us-east-1',
        prefix: PREFIX,
        ca: undefined,
      },
      credentials: async () => ({ accessKeyId: 'test', secretAccessKey: 'test' }),
      clock: { now: () => this.coordinator.now },
    });
    const eviction = new Eviction({
      ...{ ...node, objects, maxBytes, isSealed: options.isSealed ?? (() => false) },
      storeEngine: new Engine('objects', node),
      coordinatorEngine: node.engine,
    });
    cleanUp(this.#t, async () => {
      node.clock.impatient = true;
      node.clock.advance(60_000);
      await eviction.close();
      objects.close();
    });
    const look = async () => {
      eviction.look();
      await eviction.idle();
    };
    return { node, eviction, look };
  }

  /** Lets a node choose what leaves, and remove it. */
  async evict({ look }: { look: () => Promise<void> }): Promise<void> {
    await look();
    this.passUntilRemoved();
    await look();
    await setImmediate();
  }

  /** Manifests in the bucket of which a blob is missing that was there. */
  incomplete(images: readonly StoredImage[]): StoredImage[] {
    return images.filter(({ manifest, blobs }) => this.has(manifest) && !blobs.every((one) => this.has(one)));
  }

  /** All content in the bucket. */
  digests(): Digest[] {
    return this.names('blobs/').flatMap((name) => contentDigest(name.slice(PREFIX.length)) ?? []);
  }
}
