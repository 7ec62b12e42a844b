/** Nodes whose clocks are wrong, on real engines whose clocks are right. */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { Clients, fleetOf, missingForFleet, slowBlob } from '../helpers/fleet-processes.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import { noise } from '../helpers/images.ts';
import type { RealMirror } from '../helpers/real-mirror.ts';

const skip = missingForFleet();
const HOUR_MS = 3_600_000;
const TAG_TTL_MS = 5_000;
const PRELOAD = `--import=${resolve(import.meta.dirname, '../helpers/wrong-clock.ts')}`;

const clockAhead = (ms: number) => ({ NODE_OPTIONS: PRELOAD, CLOCK_AHEAD_MS: String(ms) });

function logOf({ process }: RealMirror): Record<string, unknown>[] {
  return process.lines
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

test('a node whose clock is an hour ahead, and one an hour behind, join: freshness on the others unchanged, follows and uploads work', {
  skip,
}, async (t) => {
  const { upstream, nodes, start } = await fleetOf(t, 1, { freshness: { tagTtl: `${TAG_TTL_MS / 1000}s` } });
  const [right] = nodes;
  assert.ok(right);
  const [ahead, behind] = [await start(clockAhead(HOUR_MS)), await start(clockAhead(-HOUR_MS))];
  const all = [ahead, behind, right];

  await t.test('all join at the first try, and those whose clock is wrong say so', () => {
    for (const [node, off] of [
      [ahead, -3600],
      [behind, 3600],
      [right, undefined],
    ] as const) {
      const log = logOf(node);
      assert.ok(log.some(({ msg }) => msg === 'joined the fleet'));
      assert.ok(
        !log.some(({ msg }) => String(msg).startsWith('the object store of the fleet cannot be used')),
      );
      const warning = log.find(({ msg }) => String(msg).startsWith("this machine's clock differs"));
      assert.equal(warning?.['offsetSeconds'], off);
    }
  });

  const clients = new Clients(t);
  for (const [what, fetching] of Object.entries({ ahead, behind })) {
    await t.test(
      `the others follow the one that is ${what}, and it brings to the store what it fetched`,
      async () => {
        const { blob, path } = slowBlob(upstream, what);
        const before = upstream.blobBytesSent();
        const own = clients.pull(fetching, path, blob);
        await upstream.waitForBytes(before + 1);
        await Promise.all([own, ...all.map((node) => clients.pull(node, path, blob))]);
        assert.ok(upstream.blobBytesSent() - before <= 1.02 * blob.length);
        await uploaded(fetching);
      },
    );
  }

  await t.test(
    'a tag that one of them was told is as fresh on the others as it is, and no fresher',
    async () => {
      upstream.clearScripts();
      upstream.addImage('org/app', '1');
      const get = async ({ port }: RealMirror) => {
        const reply = await fetch(`http://127.0.0.1:${port}/v2/org/app/manifests/1`);
        assert.equal(reply.status, 200);
        await reply.arrayBuffer();
      };
      const asked = () => upstream.count('manifest');
      for (const node of all) {
        await get(node);
        await uploaded(node); // the others get the manifest itself from the store
        assert.equal(
          asked(),
          1,
          `told by the one that is ahead: ${JSON.stringify(upstream.requests.slice(-2))}`,
        );
      }
      for (const first of [behind, right, ahead]) {
        await new Promise((done) => setTimeout(done, TAG_TTL_MS + 100));
        const before = asked();
        await get(first);
        for (const node of all) await get(node);
        assert.equal(asked(), before + 1, 'past its TTL');
      }
    },
  );
});

for (const [what, aheadMs] of [
  ['ahead', HOUR_MS],
  ['behind', -HOUR_MS],
] as const) {
  test(`a client gets a blob by the redirect of a node whose clock is an hour ${what}`, {
    skip,
  }, async (t) => {
    const { upstream, start } = await fleetOf(t, 0, {}, { redirectAbove: '1MiB' });
    const node = await start(clockAhead(aheadMs));
    const blob = noise(2 * 1024 * 1024, what);
    const path = `org/app/blobs/${upstream.addContent(blob)}`;
    await new Clients(t).pull(node, path, blob);
    await uploaded(node);
    const redirect = await fetch(`http://127.0.0.1:${node.port}/v2/${path}`, { redirect: 'manual' });
    assert.equal(redirect.status, 307);
    const reply = await fetch(String(redirect.headers.get('location')));
    assert.equal(reply.status, 200);
    assert.ok(Buffer.from(await reply.arrayBuffer()).equals(blob));
  });
}
