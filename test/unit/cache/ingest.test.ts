import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Spool } from '../../../src/cache/ingest/spool.ts';
import type { ContentReader } from '../../../src/cache/store/content-store.ts';
import { ContentError, StorageError } from '../../../src/cache/store/errors.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { FailingFileSystem } from '../../helpers/failing-file-system.ts';
import { readRange } from '../../helpers/readers.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const MIB = 1024 * 1024;

async function setUp(t: TestContext, size = 300_000) {
  const directory = await tempDir(t);
  const disk = new FailingFileSystem();
  const spool = new Spool(directory, disk.fileSystem);
  await spool.sweep();
  const bytes = randomBytes(size);
  const digest = digestOf(bytes);
  const ingest = await spool.open(digest, 'quay.io');
  return { directory, disk, spool, bytes, digest, ingest, writer: ingest.writer(0) };
}

/** The first `count` bytes for one who wants all. */
async function readFirst(reader: ContentReader, count: number): Promise<Buffer> {
  const bytes = Buffer.alloc(count);
  let position = 0;
  while (position < count) position += await reader.read(bytes.subarray(position), position, reader.size);
  return bytes;
}

/** Whether a promise is still pending after everything that was ready to run has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const done = () => {
    settled = true;
  };
  promise.then(done, done);
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  return !settled;
}

function isFreed({ buffer }: Buffer): boolean {
  return buffer instanceof ArrayBuffer && buffer.detached;
}

test('a follower reads while the writer still writes', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  const follower = ingest.follow();
  await writer.append(bytes.subarray(0, 100_000));
  assert.deepEqual(await readFirst(follower, 100_000), bytes.subarray(0, 100_000));
  await follower.close();
  ingest.abort(new Error('enough'));
  await ingest.end();
});

test('the last bytes are held back until the digest has matched', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  const follower = ingest.follow();
  await writer.append(bytes);
  const all = readRange(follower, 0, bytes.length);
  assert.ok(await isPending(all), 'nobody has the whole before it is verified');
  await ingest.verify();
  assert.deepEqual(await all, bytes);
  await follower.close();
  await ingest.end();
});

test('the last bytes of a range are held back too', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  const follower = ingest.follow();
  await writer.append(bytes);
  const range = readRange(follower, 10, 110);
  assert.ok(await isPending(range), 'a short range is complete only with verified bytes');
  await ingest.verify();
  assert.deepEqual(await range, bytes.subarray(10, 110));
  await follower.close();
  await ingest.end();
});

test('wrong bytes reach no follower as a whole', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  const follower = ingest.follow();
  const wrong = Buffer.from(bytes);
  wrong[12_345] = (wrong[12_345] ?? 0) ^ 1;
  await writer.append(wrong);
  const all = readRange(follower, 0, bytes.length);
  const failure = await ingest.verify().catch((error: Error) => error);
  assert.ok(failure instanceof ContentError);
  assert.equal(failure.code, 'digest-mismatch');
  ingest.abort(failure);
  await assert.rejects(all, failure);
  await follower.close();
  await ingest.end();
});

test('too few bytes do not verify, and more than there should be are refused', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  await writer.append(bytes.subarray(1));
  await assert.rejects(ingest.verify(), { code: 'truncated' });
  await assert.rejects(writer.append(Buffer.alloc(2)), { code: 'size-mismatch' });
  await ingest.end();
});

test('a size that contradicts an earlier one is refused', async (t) => {
  const { ingest, bytes } = await setUp(t);
  ingest.setSize(bytes.length);
  assert.throws(() => ingest.setSize(bytes.length - 1), { code: 'size-mismatch' });
  await ingest.end();
});

test('every follower gets the cause of a failed fill', async (t) => {
  const { ingest, bytes } = await setUp(t);
  ingest.setSize(bytes.length);
  const followers = Array.from({ length: 10 }, () => ingest.follow());
  const reads = followers.map((follower) => readRange(follower, 0, bytes.length));
  const cause = new Error('upstream is gone');
  ingest.abort(cause);
  for (const read of reads) await assert.rejects(read, cause);
  await Promise.all(followers.map((follower) => follower.close()));
  await ingest.end();
});

test('closing a follower ends the read that waits, and leaves the others alone', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  const [leaving, staying] = [ingest.follow(), ingest.follow()];
  const left = readRange(leaving, 0, bytes.length);
  const stayed = readRange(staying, 0, bytes.length);
  await leaving.close();
  await assert.rejects(left);
  await writer.append(bytes);
  await ingest.verify();
  assert.deepEqual(await stayed, bytes);
  await staying.close();
  await ingest.end();
});

test('the file is closed when the writer and the last follower are done with it, and not before', async (t) => {
  const { ingest, bytes, disk, writer } = await setUp(t);
  ingest.setSize(bytes.length);
  const follower = ingest.follow();
  await writer.append(bytes);
  await ingest.verify();
  await ingest.end();
  assert.equal(disk.openFiles, 1);
  assert.deepEqual(await readRange(follower, 0, bytes.length), bytes);
  await follower.close();
  assert.equal(disk.openFiles, 0);
});

test('the memory of what is in the file is freed at once, but of what is being written, and of what others share', async (t) => {
  const { ingest, bytes, disk, writer } = await setUp(t);
  const next = ingest.writer(200_000);
  const first = Buffer.from(new Uint8Array(bytes.subarray(0, 200_000)).buffer); // as what comes from a socket
  const second = bytes.subarray(200_000);
  const gate = Promise.withResolvers<void>();
  disk.slowWrites = gate.promise;
  await writer.append(first);
  await next.append(second);
  // The first part is hashed, and so is the second behind it; both are still to be written.
  assert.ok(await isPending(ingest.verify()));
  assert.equal(isFreed(first), false);
  gate.resolve();
  await ingest.verify();
  assert.ok(isFreed(first));
  await ingest.end();
  assert.equal(isFreed(second), false);
});

test('when the disk fails in the middle, what is in the file is a hashed front to go on from', async (t) => {
  const { ingest, bytes, disk, writer } = await setUp(t, 3 * MIB);
  disk.failWritesBeyond = MIB;
  disk.fail('write', 'ENOSPC');
  ingest.setSize(bytes.length);
  const follower = ingest.follow();
  await writer.append(bytes.subarray(0, 600_000));
  assert.deepEqual(await readFirst(follower, 600_000), bytes.subarray(0, 600_000));
  const failure = await writer
    .append(bytes.subarray(600_000))
    .then(() => ingest.verify())
    .catch((error: unknown) => error);
  assert.ok(failure instanceof StorageError);
  assert.equal(failure.errno, 'ENOSPC');
  const front = ingest.frontState();
  assert.equal(front.length, 600_000);
  assert.equal(
    front.hash.update(bytes.subarray(600_000)).digest('hex'),
    ingest.digest.slice('sha256:'.length),
  );
  await assert.rejects(follower.read(Buffer.alloc(10), 600_000, bytes.length), StorageError);
  await follower.close();
  await ingest.end();
  assert.equal(disk.openFiles, 0);
});

test('an ingest goes on where an earlier one of the same digest broke off', async (t) => {
  const { ingest, spool, bytes, digest, writer } = await setUp(t, 3 * MIB);
  await writer.append(bytes.subarray(0, 2 * MIB));
  ingest.abort(new Error('the process was killed'));
  await spool.retire(ingest, { resumable: true });
  await ingest.end();
  await spool.sweep();
  const resumed = await spool.open(digest, 'quay.io');
  assert.equal(resumed.front, 2 * MIB);
  resumed.setSize(bytes.length);
  await resumed.writer(2 * MIB).append(bytes.subarray(2 * MIB));
  await resumed.verify();
  await resumed.end();
  assert.deepEqual(await readFile(resumed.path), bytes);
});

test('a partial blob that is not worth resuming, or must not be, is removed', async (t) => {
  const { ingest, spool, directory, bytes, writer } = await setUp(t, 3 * MIB);
  await writer.append(bytes.subarray(0, 1000));
  await ingest.end();
  await spool.retire(ingest, { resumable: true });
  assert.deepEqual(await readdir(join(directory, 'ingest')), []);
  const again = await spool.open(ingest.digest, 'quay.io');
  await again.writer(0).append(bytes.subarray(0, 2 * MIB));
  await again.end();
  await spool.retire(again, { resumable: false });
  assert.deepEqual(await readdir(join(directory, 'ingest')), []);
});

test('a sweep removes litter and keeps large partial blobs', async (t) => {
  const { directory, spool, digest, ingest } = await setUp(t);
  await ingest.end();
  const folder = join(directory, 'ingest');
  const origin = ingest.path.slice(ingest.path.lastIndexOf('.'));
  await writeFile(join(folder, 'new-1'), randomBytes(2 * MIB));
  await writeFile(join(folder, digest.replace(':', '-')), randomBytes(2 * MIB)); // of a version before 0.2
  await writeFile(ingest.path, randomBytes(2 * MIB));
  await writeFile(join(folder, digestOf(Buffer.from('small')).replace(':', '-') + origin), randomBytes(1000));
  await spool.sweep();
  assert.deepEqual(await readdir(folder), [basename(ingest.path)]);
  assert.equal((await stat(ingest.path)).size, 2 * MIB);
});
