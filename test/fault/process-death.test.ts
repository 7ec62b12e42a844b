import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { killAgainAndAgain } from '../helpers/kills.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');

test('kill -9 in the middle of fills, a few times: what is committed is whole, and partial blobs are resumed', async (t) => {
  await killAgainAndAgain(t, 6, 1);
});

test('a second mirror on the same directory refuses to start and says why; the first one goes on', async (t) => {
  const directory = await tempDir(t);
  const config = { upstreams: { 'docker.io': { url: 'http://127.0.0.1:9' } } };
  const first = await startRealMirror(t, directory, config);
  const second = execFile(process.execPath, [MAIN, 'serve', '--config', join(directory, 'millpond.yaml')]);
  let stderr = '';
  second.stderr?.on('data', (text: string) => {
    stderr += text;
  });
  const [code] = (await once(second, 'close')) as [number];
  assert.equal(code, 1);
  assert.match(stderr, new RegExp(`is in use by another Millpond, process ${first.process.pid}\\b`));
  assert.ok((await fetch(`http://127.0.0.1:${first.operationsPort}/readyz`)).ok);
});
