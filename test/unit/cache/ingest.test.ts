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
  assert.equal(await isPending(all), false);
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

test('a size smaller than what has come already is refused, and the blob with it', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  const follower = ingest.follow(bytes.length);
  await writer.append(bytes);
  assert.ok((await follower.read(Buffer.alloc(1), 0, bytes.length)) > 0); // now it is in the file
  assert.throws(() => ingest.setSize(ingest.front - 1), { code: 'size-mismatch' });
  assert.equal(ingest.size, undefined);
  await follower.close();
  await ingest.end();
});

test('a client that waits for the size goes on when it is known', async (t) => {
  const { ingest, bytes } = await setUp(t);
  const sized = ingest.sized();
  assert.ok(await isPending(sized));
  ingest.setSize(bytes.length);
  assert.equal(await isPending(sized), false);
  await ingest.end();
});

test('a client that waits for the size is told why it never comes', async (t) => {
  const { ingest } = await setUp(t);
  const sized = ingest.sized();
  const cause = new Error('upstream is gone');
  ingest.abort(cause);
  assert.equal(await isPending(sized), false);
  await assert.rejects(sized, cause);
  await assert.rejects(ingest.verify(), cause);
  await ingest.end();
});

test('a fill that fails before anybody has asked for the size ends no process', async (t) => {
  const { ingest } = await setUp(t);
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  ingest.abort(new Error('upstream is gone'));
  assert.ok(await isPending(new Promise(() => undefined)));
  process.off('unhandledRejection', note);
  assert.deepEqual(unhandled, []);
  await ingest.end();
});

test('bytes that were given up are not verified, though they are the right ones', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  await writer.append(bytes);
  const cause = new Error('the mirror is shutting down');
  ingest.abort(cause);
  await assert.rejects(ingest.verify(), cause);
  assert.equal(ingest.verified, false);
  await ingest.end();
});

test('a follower that expects another size than the fill states is refused at once', async (t) => {
  const { ingest, bytes } = await setUp(t);
  ingest.setSize(bytes.length);
  for (const size of [bytes.length - 1, bytes.length + 1])
    assert.throws(() => ingest.follow(size), { code: 'size-mismatch' });
  await ingest.end();
});

test('a follower whose size turns out to be wrong gets no more bytes, and the others all of them', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  const [wrong, right] = [ingest.follow(bytes.length + 1), ingest.follow(bytes.length)];
  const [refused, whole] = [readRange(wrong, 0, wrong.size), readRange(right, 0, right.size)];
  await writer.append(bytes.subarray(0, 100));
  ingest.setSize(bytes.length);
  assert.equal(await isPending(refused), false);
  await assert.rejects(refused, { code: 'size-mismatch' });
  await writer.append(bytes.subarray(100));
  await ingest.verify();
  assert.ok((await whole).equals(bytes));
  await assert.rejects(wrong.read(Buffer.alloc(1), 0, wrong.size), { code: 'size-mismatch' });
  await Promise.all([wrong.close(), right.close()]);
  await ingest.end();
});

test('each follower that leaves says so, once', async (t) => {
  const { ingest, bytes } = await setUp(t);
  ingest.setSize(bytes.length);
  let count = 0;
  const followers = Array.from({ length: 3 }, () => {
    count += 1;
    return ingest.follow(bytes.length, () => {
      count -= 1;
    });
  });
  for (const [at, follower] of followers.entries()) {
    await follower.close();
    await follower.close();
    assert.equal(count, 2 - at);
  }
  await ingest.end();
});

test('a disk that takes less than it is given loses no bytes, wherever a write breaks off', async (t) => {
  for (const mostWritten of [1000, 65_536, 70_000, 131_072, 299_999]) {
    const { ingest, bytes, disk, writer } = await setUp(t);
    disk.mostWritten = mostWritten;
    const appended: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += 65_536)
      appended.push(writer.append(bytes.subarray(at, at + 65_536)));
    await Promise.all(appended);
    await ingest.verify();
    await ingest.end();
    assert.ok((await readFile(ingest.path)).equals(bytes), `${mostWritten} bytes at a time`);
  }
});

test('a writer waits for the disk while a MiB waits in memory', async (t) => {
  const { ingest, bytes, disk, writer } = await setUp(t, 3 * MIB);
  const gate = Promise.withResolvers<void>();
  disk.slowWrites = gate.promise;
  assert.equal(await isPending(writer.append(bytes.subarray(0, 1000))), false);
  const more = writer.append(bytes.subarray(1000));
  assert.ok(await isPending(more), 'nothing is appended without bound');
  gate.resolve();
  await more;
  await ingest.verify();
  await ingest.end();
});

test('every follower gets the cause of a failed fill', async (t) => {
  const { ingest, bytes } = await setUp(t);
  ingest.setSize(bytes.length);
  const followers = Array.from({ length: 10 }, () => ingest.follow());
  const reads = followers.map((follower) => readRange(follower, 0, bytes.length));
  const cause = new Error('upstream is gone');
  ingest.abort(cause);
  const outcomes = Promise.allSettled(reads);
  assert.equal(await isPending(outcomes), false);
  for (const outcome of await outcomes) assert.deepEqual(outcome, { status: 'rejected', reason: cause });
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

/** A copy with memory of its own, as what comes from a socket. */
function own(bytes: Buffer): Buffer {
  return Buffer.from(new Uint8Array(bytes).buffer);
}

test('the memory of every batch is freed, of one that came before its turn too', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  const parts = [0, 100_000, 200_000].map((at) => own(bytes.subarray(at, at + 100_000)));
  const [first, second, third] = parts as [Buffer, Buffer, Buffer];
  const follower = ingest.follow(bytes.length);
  await ingest.writer(200_000).append(third);
  await writer.append(first);
  assert.ok((await readFirst(follower, 100_000)).equals(bytes.subarray(0, 100_000)));
  const rest = readRange(follower, 100_000, bytes.length);
  await writer.append(second);
  await ingest.verify();
  // The third was read back behind them, out of the file.
  assert.deepEqual([first, second, third].map(isFreed), [true, true, true]);
  assert.ok((await rest).equals(bytes.subarray(100_000)));
  await follower.close();
  await ingest.end();
});

test('the memory of the last batch is freed at the end', async (t) => {
  const { ingest, bytes, writer } = await setUp(t);
  const only = own(bytes);
  await writer.append(only);
  await ingest.verify();
  assert.equal(isFreed(only), false);
  await ingest.end();
  assert.ok(isFreed(only));
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
