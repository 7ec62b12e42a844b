/** Last uses, as each driver of a coordinator keeps them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { createClient } from '@redis/client';
import { type Coordinator, useGroup } from '../../src/fleet/coordinator/coordinator.ts';
import { valkeyCoordinator } from '../../src/fleet/coordinator/valkey-coordinator.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { assertKeepsUses } from '../helpers/coordinator-uses-rules.ts';
import { MemoryCoordinator } from '../helpers/memory-coordinator.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';

const skip = missingPrograms('redis-server');
const OBJECTS = 100_000;
/** 250 MiB for a million. */
const MOST_BYTES = 25 * 1024 * 1024;

test('the coordinator in memory keeps last uses as the real one does', async (t) => {
  const coordinator = new MemoryCoordinator();
  coordinator.now = 1_000_000_000;
  await assertKeepsUses(t, {
    uses: coordinator.uses,
    pass: async (ms) => {
      coordinator.now += ms;
    },
  });
});

test('Valkey keeps last uses', { skip }, async (t) => {
  const real = await startCoordinator(t);
  const coordinator = await connected(real.url);
  cleanUp(t, () => coordinator.close());
  await assertKeepsUses(t, { uses: coordinator.uses, pass: real.pass });
});

test('the last uses of 100 000 objects take at most 25 MiB of Valkey, in at least 64 places', {
  skip,
}, async (t) => {
  const real = await startCoordinator(t);
  const coordinator = await connected(real.url);
  const client = createClient({ url: real.url.replace('valkey:', 'redis:') });
  await client.connect();
  cleanUp(t, async () => {
    client.destroy();
    await coordinator.close();
  });
  const used = async () => Number(/^used_memory:(\d+)/m.exec(await client.info('memory'))?.[1]);
  await coordinator.uses.look([digestOf(Buffer.from('the first'))]);
  const before = await used();
  const groups = new Set<number>();
  for (let at = 0; at < OBJECTS; at += 1_000) {
    const digests = Array.from({ length: 1_000 }, (_, more) => digestOf(Buffer.from(`${at + more}`)));
    for (const digest of digests) groups.add(useGroup(digest));
    await coordinator.uses.look(digests);
  }
  const bytes = (await used()) - before;
  t.diagnostic(
    `${OBJECTS} objects: ${(bytes / 1024 / 1024).toFixed(1)} MiB, ${Math.round(bytes / OBJECTS)} bytes each`,
  );
  assert.ok(bytes <= MOST_BYTES, `${bytes}`);
  assert.equal(await client.dbSize(), OBJECTS + 1);
  assert.ok(groups.size >= 64);
});

/** It connects in the background. */
async function connected(url: string): Promise<Coordinator> {
  const coordinator = valkeyCoordinator({
    ...{ url, username: undefined, password: undefined, ca: undefined, prefix: 'millpond/' },
  });
  const isConnected = () =>
    coordinator.uses.removed([digestOf(Buffer.from('any'))]).then(
      () => true,
      () => false,
    );
  while (!(await isConnected())) await setImmediate();
  return coordinator;
}
