import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockSums } from '../../../src/cache/store/block-sums.ts';
import { CheckedReader } from '../../../src/cache/store/checked-reader.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { noise } from '../../helpers/images.ts';
import { readRange } from '../../helpers/readers.ts';

const MIB = 1024 * 1024;
const bytes = noise(3 * MIB + 1000, 'checked');

function open(content = bytes, sums: string | undefined = sumsOf(bytes)) {
  const told: string[] = [];
  const stored = {
    size: content.length,
    version: '1',
    file: 'sha256/ab/abc',
    read: async (target: Buffer, position: number, end: number) =>
      content.copy(target, 0, position, Math.min(end, position + target.length)),
    close: async () => void told.push('closed'),
  };
  const reader = new CheckedReader(stored, digestOf(bytes), sums, {
    whole: () => void told.push('whole'),
    damaged: async () => void told.push('damaged'),
    closed: () => void told.push('released'),
  });
  return { reader, told };
}

function sumsOf(content: Buffer): string {
  const sums = new BlockSums();
  sums.update(content);
  return sums.value();
}

test('content that was read whole, front to back, is told to be right', async () => {
  const { reader, told } = open();
  assert.deepEqual(await readRange(reader, 0, bytes.length), bytes);
  assert.deepEqual(told, ['whole']);
});

test('content of which a block was left out is not told to be right, though its last block was read', async () => {
  const { reader, told } = open();
  await readRange(reader, 0, MIB);
  await readRange(reader, 2 * MIB, bytes.length);
  assert.deepEqual(told, []);
});

test('a range that ends in a damaged block does not get its last bytes, wherever in the block the damage is', async () => {
  for (const at of [2 * MIB - 1, MIB]) {
    const damaged = Buffer.from(bytes);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    const { reader, told } = open(damaged);
    await assert.rejects(readRange(reader, MIB + 1000, MIB + 2000), { code: 'damaged' });
    assert.deepEqual(told, ['damaged']);
  }
});

test('content without sums is read as it is, and only that may be sent by others', async () => {
  const unchecked = open(bytes, sumsOf(bytes));
  assert.equal(unchecked.reader.file, undefined);
  const known = new CheckedReader(
    { size: 3, version: '1', file: 'x', read: async () => 3, close: async () => undefined },
    digestOf(bytes),
    undefined,
    { whole: () => assert.fail(), damaged: async () => assert.fail(), closed: () => undefined },
  );
  assert.equal(known.file, 'x');
  assert.equal(await known.read(Buffer.alloc(3), 0, 3), 3);
});

test('closing releases the hold on the content, and closes its file', async () => {
  const { reader, told } = open();
  await reader.close();
  assert.deepEqual(told, ['released', 'closed']);
});
