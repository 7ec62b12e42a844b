/** What a client could unpack is known by its content. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { isArchive } from '../../../src/policy/parts/archives.ts';
import { tarOf } from '../../helpers/tars.ts';

/** One file in the oldest form: without a mark, and readable as JSON up to its end. */
function oldTar(name: string, fill: string, asSigned = false): Buffer {
  const field = (text: string, length: number) => text.padEnd(length, fill).slice(0, length);
  const fields = [
    field(name, 100),
    ...['0000755 ', '0000000 ', '0000000 ', '00000001000 ', '00000000000 ', '        ', '0'],
  ];
  const header = Buffer.from(fields.join('').padEnd(512, fill), 'latin1');
  let sum = 0;
  for (const byte of asSigned ? new Int8Array(header) : header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return Buffer.concat([header, Buffer.from('echo hello #'.padEnd(512, ' '))]);
}

test('a tar is an archive, of whatever age, and also when its header could be text', async () => {
  const tar = await tarOf([{ name: 'bin/sh', bytes: 'hello' }]);
  assert.ok(isArchive(tar));
  for (const old of [
    oldTar('bin/sh\0', '\0'),
    oldTar('{"name":"bin', ' '),
    oldTar('b\xefn', '\0'),
    oldTar('b\xefn', '\0', true),
  ])
    assert.ok(isArchive(old));
});

test('what is compressed is an archive', async () => {
  const tar = await tarOf([{ name: 'bin/sh', bytes: 'hello' }]);
  const zstd = zstdCompressSync(tar);
  const skipped = Buffer.concat([Buffer.from('5a2a4d1801000000', 'hex'), Buffer.from('x'), zstd]);
  const xz = Buffer.from('fd377a585a000004', 'hex');
  for (const content of [gzipSync(tar), zstd, skipped, xz, Buffer.from('BZh91AY&SY')])
    assert.ok(isArchive(content), content.toString('latin1', 0, 8));
});

test('JSON, text and CBOR are no archives, whatever their length', () => {
  const json = Buffer.from(JSON.stringify({ payload: 'x'.repeat(2000) }));
  const text = Buffer.from('SPDXVersion: SPDX-2.3\n'.repeat(100));
  for (const content of [json, text, Buffer.from('d28443a10126', 'hex'), Buffer.alloc(0), Buffer.from('{}')])
    assert.ok(!isArchive(content));
});
