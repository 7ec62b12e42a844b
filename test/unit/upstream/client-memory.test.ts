import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectGarbage } from '../../helpers/garbage.ts';
import { startClient } from '../../helpers/test-client.ts';

const CLIENTS = 100;
const KIB = 1024;

/** A reload creates a client for each upstream that has changed, and garbage of this size makes the process grow. */
test('a client that has not been used yet takes less than 128 KiB', (t) => {
  const clients = new Set<unknown>();
  const create = () => clients.add(startClient(t, { url: 'https://registry.test' }));
  create(); // loads and compiles what all of them share
  const before = usedBytes();
  while (clients.size <= CLIENTS) create();
  const each = (usedBytes() - before) / CLIENTS;
  t.diagnostic(`${Math.round(each / KIB)} KiB`);
  assert.ok(each < 128 * KIB, `${Math.round(each / KIB)} KiB each`);
});

function usedBytes(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
