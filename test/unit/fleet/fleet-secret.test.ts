/** What is signed with the secret of a fleet is believed, and nothing else is. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import * as z from 'zod';
import { FleetSecret } from '../../../src/fleet/records/fleet-secret.ts';
import { readRecord, writeRecord } from '../../../src/fleet/records/signed-record.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const [OLD, NEW] = ['an old secret that is long enough, surely', 'a new secret that is long enough, as well'];
const schema = z.object({ size: z.number() });

async function setUp(t: TestContext, content: string) {
  const file = join(await tempDir(t), 'secret');
  await writeFile(file, content, { mode: 0o600 });
  const clock = new FakeClock();
  const logger = createLogger({ level: 'silent', destination: { write: () => undefined }, now: () => 0 });
  return { file, clock, secret: await FleetSecret.open(file, { clock, logger }) };
}

test('a record is read back under its own name, and under no other', async (t) => {
  const { secret } = await setUp(t, `${OLD}\n`);
  const text = (await writeRecord(secret, 'a/b', { size: 1, later: 'field' })).toString();
  assert.deepEqual(await readRecord(secret, 'a/b', text, schema), { size: 1 });
  assert.equal(await readRecord(secret, 'a/c', text, schema), undefined);
});

test('a record in which one character was changed is not believed', async (t) => {
  const { secret } = await setUp(t, OLD);
  const text = (await writeRecord(secret, 'name', { size: 12 })).toString();
  for (let at = 0; at < text.length; at += 1) {
    const changed = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1);
    assert.equal(await readRecord(secret, 'name', changed, schema), undefined, changed);
  }
  for (const garbage of ['', '\n', '{}', `\n{"size":1}`, `${'0'.repeat(64)}\n{"size":1}`])
    assert.equal(await readRecord(secret, 'name', garbage, schema), undefined);
});

test('with two secrets the first signs and both are believed; with another one nothing is', async (t) => {
  const before = await setUp(t, OLD);
  const both = await setUp(t, `${NEW}\n${OLD}\n`);
  const after = await setUp(t, NEW);
  const [old, changed] = [
    (await writeRecord(before.secret, 'n', { size: 1 })).toString(),
    (await writeRecord(both.secret, 'n', { size: 2 })).toString(),
  ];
  assert.deepEqual(await readRecord(both.secret, 'n', old, schema), { size: 1 });
  assert.deepEqual(await readRecord(after.secret, 'n', changed, schema), { size: 2 });
  assert.equal(await readRecord(before.secret, 'n', changed, schema), undefined);
  assert.equal(await readRecord(after.secret, 'n', old, schema), undefined);
});

test('a changed file counts without a restart', async (t) => {
  const { file, clock, secret } = await setUp(t, OLD);
  const text = (await writeRecord(secret, 'n', { size: 1 })).toString();
  await writeFile(file, NEW);
  clock.advance(4_000);
  assert.equal(await readRecord(secret, 'n', text, schema), undefined);
});

for (const [content, message] of [
  ['', /holds no secret/],
  ['short', /fewer than 32 characters/],
  [`${OLD}\nshort`, /fewer than 32 characters/],
  [`${OLD}\n${NEW}\n${OLD}`, /more than two lines/],
] as const)
  test(`a file with ${JSON.stringify(content)} is refused without quoting it`, async (t) => {
    await assert.rejects(setUp(t, content), (error: Error) => {
      assert.match(error.message, message);
      assert.ok(content === '' || !error.message.includes(OLD));
      return true;
    });
  });
