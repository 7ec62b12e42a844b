/** What upstream tells one node counts for those that it counts as one with it; and a node that cannot reach it is helped. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { fleetOf, missingForFleet } from '../helpers/fleet-processes.ts';
import { noise } from '../helpers/images.ts';
import type { RealMirror } from '../helpers/real-mirror.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { TestProxy } from '../helpers/test-proxy.ts';

const skip = missingForFleet();

test('after a 429 with Retry-After the nodes of the same egress wait until its time is over, those of another go on', {
  skip,
}, async (t) => {
  const { upstream, start } = await fleetOf(t, 0);
  const [a, b] = [await start({ egress: 'site-a' }), await start({ egress: 'site-a' })];
  const c = await start({ egress: 'site-b' });
  const names = Array.from({ length: 12 }, (_, at) => `org/app${at}`);
  for (const name of names) upstream.addImage(name, '1');
  const left = names.values();
  /** Asks for an image that no node has. */
  const ask = async ({ port }: RealMirror) => {
    const reply = await fetch(`http://127.0.0.1:${port}/v2/${left.next().value}/manifests/1`);
    await reply.arrayBuffer();
    return reply;
  };
  for (const node of [a, b, c]) assert.equal((await ask(node)).status, 200); // all have just been told that all is well
  upstream.script(
    { kind: 'manifest' },
    (reply) => Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '3' })),
    { times: 1 },
  );
  const before = upstream.count('manifest');
  assert.equal((await ask(a)).status, 429);
  const refused = await ask(b);
  assert.equal(refused.status, 429);
  assert.equal((await ask(b)).status, 429);
  assert.equal(upstream.count('manifest'), before + 1, 'only the node that was told has asked');
  assert.equal((await ask(c)).status, 200);
  const retryAfter = Number(refused.headers.get('retry-after'));
  assert.ok(retryAfter >= 1 && retryAfter <= 3);
  await new Promise((resolve) => setTimeout(resolve, retryAfter * 1000)); // as a client does
  assert.equal((await ask(b)).status, 200);
});

test('a node that is cut off from upstream serves all that its clients ask for, by a node that is not', {
  skip,
}, async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/app', '1', { layers: [1_000_000, 2_000_000] });
  const routes = { 'registry.test': Number(new URL(upstream.url).port) };
  const proxy = await TestProxy.start(t, { routes });
  const fleet = await fleetOf(t, 0);
  const start = (by: string) => fleet.start({}, { url: 'http://registry.test', proxy: by });
  // Members learn of each other by a heartbeat, and the one that starts last knows all at once.
  const [able, cutOff] = [await start(proxy.url), await start('http://127.0.0.1:9')];
  const get = async ({ port }: RealMirror, path: string) => {
    const reply = await fetch(`http://127.0.0.1:${port}/v2/org/app/${path}`);
    assert.equal(reply.status, 200, path);
    return Buffer.from(await reply.arrayBuffer());
  };
  assert.ok((await get(cutOff, 'manifests/1')).equals(image.top.bytes));
  for (const blob of image.blobs) assert.ok((await get(cutOff, `blobs/${digestOf(blob)}`)).equals(blob));
  assert.match((await get(cutOff, 'tags/list')).toString(), /"1"/);
  assert.equal(upstream.count('manifest', 'GET'), 1);
  assert.equal(upstream.count('blob', 'GET'), image.blobs.length);
  // And with the coordinator away.
  await fleet.coordinator.process.kill();
  const more = noise(3_000_000, 'more');
  const path = `blobs/${upstream.addContent(more)}`;
  for (const node of [cutOff, able]) assert.ok((await get(node, path)).equals(more));
  const stats = upstream.blobBytesSent() - image.blobs.reduce((sum, { length }) => sum + length, 0);
  t.diagnostic(
    `without a coordinator upstream sent ${(stats / more.length).toFixed(2)} of a blob to two nodes`,
  );
});
