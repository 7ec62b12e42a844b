/** Nodes give bytes to each other, and to nobody else. */
import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { ContentReader } from '../../../src/cache/store/content-store.ts';
import { headersOf, peerPath } from '../../../src/fleet/nodes/peer-requests.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { noise } from '../../helpers/images.ts';
import { testNode } from '../../helpers/test-node.ts';

const BLOB = noise(300_000, 'blob');
const DIGEST = digestOf(BLOB);
const UPSTREAM = 'a'.repeat(32);
const KEPT_BACK = 64 * 1024;

/** As one that is still coming in: what comes before `end` is kept back until all has come. */
function reader(all: Promise<unknown> = Promise.resolve(), state = { isWhole: false }): ContentReader {
  void all.then(() => {
    state.isWhole = true;
  });
  return {
    size: BLOB.length,
    read: async (target, position, end) => {
      if (position >= end - KEPT_BACK) await all;
      const last = state.isWhole ? end : end - KEPT_BACK;
      return BLOB.copy(target, 0, position, Math.min(last, position + target.length));
    },
    close: async () => undefined,
  };
}

async function twoNodes(t: TestContext, secret?: string) {
  const holder = await testNode(t, 'holder', { openHere: async () => reader() });
  const asking = await testNode(t, 'asking', secret === undefined ? {} : { secret });
  const open = (range: { from?: number; to?: number } = {}) =>
    asking.peers.open(
      { id: 'holder', address: holder.address, version: '1' },
      UPSTREAM,
      DIGEST,
      range,
      undefined,
    );
  return { holder, asking, open };
}

test('a member gets all bytes, or a part of them', async (t) => {
  const { open } = await twoNodes(t);
  for (const range of [{}, { from: 100_000 }, { from: 5, to: 250_001 }]) {
    const answer = await open(range);
    assert.ok(answer.kind === 'bytes' && answer.size === BLOB.length);
    assert.ok((await buffer(answer.body)).equals(BLOB.subarray(range.from ?? 0, range.to)));
  }
});

test('a part in the middle comes while the end of the blob is still kept back', async (t) => {
  const never = new Promise(() => undefined);
  const holder = await testNode(t, 'holder', { openHere: async () => reader(never) });
  const asking = await testNode(t, 'asking');
  const member = { id: 'holder', address: holder.address, version: '1' };
  const answer = await asking.peers.open(member, UPSTREAM, DIGEST, { from: 0, to: 200_000 }, undefined);
  assert.ok(answer.kind === 'bytes');
  assert.ok((await buffer(answer.body)).equals(BLOB.subarray(0, 200_000)));
});

test('who does not know the secret gets nothing, and is believed nothing', async (t) => {
  const { open } = await twoNodes(t, 'quite another secret, and long enough, too');
  assert.deepEqual(await open(), { kind: 'absent' });
});

test('an answer that is not signed is that of no node', async (t) => {
  const { asking } = await twoNodes(t);
  const stranger = await testNode(t, 'stranger', { secret: 'quite another secret, and long enough, too' });
  const member = { id: 'x', address: stranger.address, version: '1' };
  assert.notEqual((await asking.peers.open(member, UPSTREAM, DIGEST, {}, undefined)).kind, 'bytes');
  const { createServer } = await import('node:http');
  const server = createServer((_, response) =>
    response
      .writeHead(200, { 'millpond-size': String(BLOB.length), 'millpond-signature': '0'.repeat(64) })
      .end(BLOB),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close().closeAllConnections());
  const { port } = server.address() as { port: number };
  const forged = { id: 'y', address: `http://127.0.0.1:${port}`, version: '1' };
  assert.deepEqual(await asking.peers.open(forged, UPSTREAM, DIGEST, {}, undefined), { kind: 'dead' });
});

test('a node that is not there is dead; one that has nothing lives', async (t) => {
  const { asking } = await twoNodes(t);
  const empty = await testNode(t, 'empty');
  const open = (address: string) =>
    asking.peers.open({ id: 'x', address, version: '1' }, UPSTREAM, DIGEST, {}, undefined);
  assert.deepEqual(await open(empty.address), { kind: 'absent' });
  assert.deepEqual(await open('http://127.0.0.1:9'), { kind: 'dead' });
});

test('a request counts once, for a minute, and for what it was signed for', async (t) => {
  const { holder } = await twoNodes(t);
  const { signatures, members } = holder;
  const path = peerPath(UPSTREAM, DIGEST);
  const base = { path, from: 0, to: 10, node: 'asking', time: members.now(), nonce: 'once', chain: ['b'] };
  const send = async (request: typeof base, signed = request) => {
    const headers = headersOf(request, await signatures.signRequest(signed));
    const reply = await fetch(holder.address + request.path, { headers });
    await reply.arrayBuffer();
    return reply.status;
  };
  assert.equal(await send(base), 200);
  assert.equal(await send(base), 401);
  assert.equal(await send({ ...base, nonce: 'old', time: base.time - 61_000 }), 401);
  assert.equal(await send({ ...base, nonce: 'early', time: base.time + 61_000 }), 401);
  for (const [at, changed] of [
    { from: 1 },
    { to: 11 },
    { node: 'other' },
    { time: base.time + 1 },
    { nonce: 'another' },
    { path: peerPath('b'.repeat(32), DIGEST) },
    { chain: [] },
    { chain: ['c'] },
  ].entries()) {
    const signed = { ...base, nonce: `signed ${at}` };
    assert.equal(await send({ ...signed, ...changed }, signed), 401, JSON.stringify(changed));
  }
  assert.equal((await fetch(holder.address + path)).status, 404);
  assert.equal((await fetch(holder.address)).status, 404);
});

test('a node whose own fetch fails has nothing to give, and goes on', async (t) => {
  const openHere = () => Promise.reject(new Error('upstream refused it'));
  const [holder, asking] = [await testNode(t, 'holder', { openHere }), await testNode(t, 'asking')];
  const member = { id: 'holder', address: holder.address, version: '1' };
  for (let at = 0; at < 2; at += 1)
    assert.deepEqual(await asking.peers.open(member, UPSTREAM, DIGEST, {}, undefined), { kind: 'absent' });
});
