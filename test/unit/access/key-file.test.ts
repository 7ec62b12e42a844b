import assert from 'node:assert/strict';
import { rename, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { KeyFile } from '../../../src/access/oidc/key-file.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { tempDir } from '../../helpers/temp-dir.ts';
import { TestKey } from '../../helpers/test-issuer.ts';

const first = new TestKey('key-1');
const second = new TestKey('key-2');
const headerOf = ({ kid }: TestKey) => ({ alg: 'ES256', kid });
const unknownKey = { name: 'JwtError', code: 'unknown-key' };
const unavailable = { name: 'IssuerError', code: 'unavailable' };

async function setUp(t: TestContext) {
  const file = join(await tempDir(t), 'jwks.json');
  const lines: string[] = [];
  const logger = createLogger({
    level: 'info',
    destination: { write: (line) => void lines.push(line) },
    now: () => 0,
  });
  const keys = new KeyFile('ci', file, logger);
  // As Kubernetes and careful tools do it.
  const write = async (text: string) => {
    await writeFile(`${file}.new`, text);
    await rename(`${file}.new`, file);
  };
  return { keys, file, lines, write, publish: (...all: TestKey[]) => write(setOf(all)) };
}

const setOf = (keys: TestKey[]) => JSON.stringify({ keys: keys.map(({ jwk }) => jwk) });

test('the keys in a file are used, by many at once, and a changed file counts at the next JWT', async (t) => {
  const { keys, lines, publish } = await setUp(t);
  await publish(first);
  await Promise.all(Array.from({ length: 20 }, () => keys.find(headerOf(first))));
  await assert.rejects(keys.find(headerOf(second)), unknownKey);
  await publish(second);
  await keys.find(headerOf(second));
  await assert.rejects(keys.find(headerOf(first)), unknownKey);
  assert.deepEqual(lines, []);
});

test('a missing file is an outage until it is there', async (t) => {
  const { keys, lines, publish } = await setUp(t);
  await assert.rejects(keys.find(headerOf(first)), unavailable);
  await assert.rejects(keys.find(headerOf(first)), unavailable);
  assert.equal(lines.length, 1, 'told of once');
  await publish(first);
  await keys.find(headerOf(first));
});

test('a file that is written in place, and given its old time back, counts as changed', async (t) => {
  const { keys, file } = await setUp(t);
  const time = new Date(1_000_000);
  for (const key of [first, second]) {
    await writeFile(file, setOf([key]));
    await utimes(file, time, time);
    await keys.find(headerOf(key));
  }
});

test('a new file that cannot be used is told of once, and the keys before it go on', async (t) => {
  const { keys, file, lines, publish, write } = await setUp(t);
  await publish(first);
  await keys.find(headerOf(first));
  for (const text of ['', 'hunter2', '{"keys":', '[]', '{"keys":7}']) {
    lines.length = 0;
    await write(text);
    await keys.find(headerOf(first));
    await keys.find(headerOf(first));
    assert.equal(lines.length, 1, text);
    assert.ok(lines[0]?.includes(file) && !lines[0].includes('hunter2'));
  }
  await rm(file);
  await keys.find(headerOf(first));
  await publish(second);
  await assert.rejects(keys.find(headerOf(first)), unknownKey);
});
