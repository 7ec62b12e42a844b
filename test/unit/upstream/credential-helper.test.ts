import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { helperCredentials } from '../../../src/upstream/auth/credential-helper.ts';
import { dockerConfigCredentials } from '../../../src/upstream/auth/docker-config.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const SECOND = 1000;
const ME = { username: 'me', password: 's' };

/** A helper that is a shell script, and counts its runs. */
async function setUp(t: TestContext) {
  const folder = await tempDir(t);
  const log = join(folder, 'runs');
  const file = join(folder, 'docker-credential-mine');
  await writeFile(file, `#!/bin/sh\necho run >> ${log}\necho '{"Username":"me","Secret":"s"}'\n`);
  await chmod(file, 0o755);
  const clock = new FakeClock();
  const environment = { PATH: `${folder}:/usr/bin:/bin` };
  const provider = helperCredentials('mine', 'quay.io', { environment, clock });
  const runs = async () => (await readFile(log, 'utf8')).split('\n').length - 1;
  return { provider, clock, runs };
}

test('a helper runs once for callers at the same time, and again after five minutes', async (t) => {
  const { provider, clock, runs } = await setUp(t);
  assert.deepEqual(await Promise.all([provider(), provider()]), [ME, ME]);
  clock.advance(300 * SECOND - 1);
  await provider();
  assert.equal(await runs(), 1);
  clock.advance(1);
  await provider();
  assert.equal(await runs(), 2);
});

test('a helper whose answer is refused runs again, but not within ten seconds', async (t) => {
  const { provider, clock, runs } = await setUp(t);
  await provider();
  clock.advance(10 * SECOND - 1);
  await provider({ refused: true });
  assert.equal(await runs(), 1);
  clock.advance(1);
  await provider({ refused: true });
  assert.equal(await runs(), 2);
});

test('a Docker configuration gives what the entry of the registry holds', async () => {
  const auth = (text: string) => Buffer.from(text).toString('base64');
  for (const [entry, expected] of [
    [{ auth: auth('me:s:t') }, { username: 'me', password: 's:t' }],
    [{ auth: auth('me:s\0\0') }, { username: 'me', password: 's' }],
    [
      { username: 'me', password: 's' },
      { username: 'me', password: 's' },
    ],
    [{ auth: auth('me:s'), identitytoken: 'i' }, { identityToken: 'i' }],
    [{ auth: auth('me:s'), registrytoken: 'r' }, { registryToken: 'r' }],
    [{ auth: auth(':s') }, undefined],
    [{}, undefined],
  ] as const) {
    const provider = dockerConfigCredentials({
      read: async () =>
        JSON.stringify({ auths: { 'https://quay.io/v2/': entry, 'ghcr.io': { auth: auth('x:y') } } }),
      hosts: ['quay.io'],
      helper: () => assert.fail('no helper is configured'),
    });
    assert.deepEqual(await provider(), expected);
  }
});
