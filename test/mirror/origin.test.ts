import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { openStorage } from '../../src/app/storage.ts';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { loadConfig } from '../../src/config/load.ts';
import { BlobMirror } from '../../src/mirror/blobs/blob-mirror.ts';
import type { BlobBytesRequest, BlobOrigin } from '../../src/mirror/blobs/blob-origin.ts';
import { SEGMENT_MAX_BYTES } from '../../src/mirror/blobs/segments.ts';
import { Permissions } from '../../src/mirror/permissions.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseRepository } from '../../src/oci/reference.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { SealableUpstream } from '../../src/upstream/client/seal.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { noise } from '../helpers/images.ts';
import { readRange } from '../helpers/readers.ts';
import { CONTEXT } from '../helpers/request-context.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { silentLogger } from '../helpers/test-transport.ts';

const blob = noise(300_000, 'not an upstream');
const REPOSITORY = parseRepository('org/app') ?? assert.fail();

/** Bytes out of memory, as an object store or another node could give them. */
class MemoryOrigin implements BlobOrigin {
  readonly name = 'memory';
  readonly asked: BlobBytesRequest[] = [];

  async open(request: BlobBytesRequest) {
    this.asked.push(request);
    const { from, to = blob.length } = request;
    return {
      size: blob.length,
      end: to,
      async *chunks() {
        for (let at = from; at < to; at += 10_000)
          yield Buffer.from(blob.subarray(at, Math.min(at + 10_000, to)));
      },
      close: () => undefined,
    };
  }
}

/** Looks a permission up no sooner than it is told to. */
class GatedPermissions extends Permissions {
  gate: Promise<void> | undefined;

  override async recorded(...asked: Parameters<Permissions['recorded']>) {
    await this.gate;
    return super.recorded(...asked);
  }
}

async function setUp(t: TestContext, fileSystem = nodeFileSystem) {
  const cwd = await tempDir(t);
  const { cache: config } = await loadConfig({ cwd });
  const context = {
    metrics: new Metrics({ version: 'test', processMetrics: false }),
    logger: silentLogger(),
    clock: new FakeClock(),
  };
  const options = { config, fileSystem, collectGarbage: () => undefined, sealed: () => false };
  const storage = await openStorage({ ...options, ...context });
  const shared = { ...storage, ...context, longestSegment: SEGMENT_MAX_BYTES };
  const origin = new MemoryOrigin();
  const permissions = new GatedPermissions(shared);
  const blobs = new BlobMirror({ ...shared, permissions, originOf: () => origin });
  cleanUp(t, async () => {
    await blobs.close();
    await storage[Symbol.asyncDispose]();
  });
  const upstream = new SealableUpstream('quay.io', () => assert.fail('no upstream is asked'));
  const request = {
    context: CONTEXT,
    upstream,
    segments: 4,
    repository: REPOSITORY,
    digest: digestOf(blob),
  };
  return { blobs, origin, permissions, request };
}

test('a fill takes its bytes from an origin that is not an upstream, and stores them', async (t) => {
  const { blobs, origin, request } = await setUp(t);
  const cold = await blobs.open(request);
  assert.equal(cold.outcome, 'miss');
  assert.ok((await readRange(cold.content, 0, blob.length)).equals(blob));
  await cold.content.close();
  await blobs.settled(request);
  const warm = await blobs.open(request);
  assert.equal(warm.outcome, 'hit');
  assert.ok((await readRange(warm.content, 0, blob.length)).equals(blob));
  await warm.content.close();
  assert.equal(origin.asked.length, 1);
});

test('past a disk that fails, the bytes come from the same origin', async (t) => {
  const disk = new FailingFileSystem();
  const { blobs, origin, request } = await setUp(t, disk.fileSystem);
  disk.fail('open', 'ENOSPC');
  const { content, outcome } = await blobs.open(request);
  assert.equal(outcome, 'bypass');
  assert.ok((await readRange(content, 0, blob.length)).equals(blob));
  await content.close();
  assert.equal(origin.asked.length, 1);
});

test('a blob that a fill brought and stored while somebody was still looking is not fetched again', async (t) => {
  const { blobs, origin, permissions, request } = await setUp(t);
  const gate = Promise.withResolvers<void>();
  permissions.gate = gate.promise;
  const late = blobs.open(request); // has found nothing in the cache
  for (let turn = 0; turn < 20; turn += 1) await setImmediate();
  permissions.gate = undefined;
  const { content } = await blobs.open(request);
  await readRange(content, 0, blob.length);
  await content.close();
  await blobs.settled(request);
  gate.resolve();
  const found = await late;
  assert.equal(found.outcome, 'hit');
  await found.content.close();
  assert.equal(origin.asked.length, 1);
});
