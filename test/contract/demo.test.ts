import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const ROOT = resolve(import.meta.dirname, '../..');

test('the demo needs no network, and shows that a warm pull sends no request to upstream', async () => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['bench/demo.ts'], { cwd: ROOT });
  assert.equal(stderr, '');
  const [heading, cold, warm] = stdout.split('\n').map((line) => line.split(/ {2,}/));
  assert.deepEqual(heading, ['pull', 'seconds', 'MiB', 'upstream requests', 'cache status']);
  assert.deepEqual([cold?.[0], cold?.[3], cold?.[4]], ['cold', '5', 'millpond; fwd=uri-miss; stored']);
  assert.deepEqual([warm?.[0], warm?.[3], warm?.[4]], ['warm', '0', 'millpond; hit']);
});
