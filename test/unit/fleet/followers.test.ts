/** A node that many follow sends some of them on to others. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { ContentReader } from '../../../src/cache/store/content-store.ts';
import { FOLLOWERS, Followers } from '../../../src/fleet/nodes/followers.ts';
import type { Member, Members } from '../../../src/fleet/nodes/members.ts';
import { HEADERS, peerPath } from '../../../src/fleet/nodes/peer-requests.ts';
import type { OpenHere } from '../../../src/fleet/nodes/peer-route.ts';
import type { PeerRequest } from '../../../src/fleet/nodes/peer-signatures.ts';
import { SharedFetches } from '../../../src/fleet/nodes/shared-fetches.ts';
import { writeRecord } from '../../../src/fleet/records/signed-record.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import type { FetchedBlob } from '../../../src/upstream/upstream.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { noise } from '../../helpers/images.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

const BLOB = noise(300_000, 'blob');
const DIGEST = digestOf(BLOB);
const UPSTREAM = 'a'.repeat(32);
const PATH = peerPath(UPSTREAM, DIGEST);
const numbered = (count: number) => Array.from({ length: count }, (_, at) => `node-${at}`);

function request(node: string, { from = 0, chain = [] as string[], path = PATH } = {}): PeerRequest {
  return { path, from, to: undefined, node, time: 0, nonce: node, chain };
}

/** A node that is called `here`, and knows others. */
function followersOf(known: readonly string[]): Followers {
  const member = (id: string): Member => ({ id, address: `http://${id}.example:5002`, version: '1' });
  return new Followers({ own: member('here'), all: known.map(member) } as unknown as Members);
}

function full(count = FOLLOWERS) {
  const names = numbered(count);
  const followers = followersOf(names);
  return { followers, added: names.map((name) => followers.add(request(name))) };
}

test('ten nodes are served, and the next ones are sent on to each of them in turn', () => {
  const { followers } = full(FOLLOWERS - 1);
  assert.equal(followers.next(request('one more')), undefined);
  const { followers: all } = full();
  const sentTo = numbered(FOLLOWERS).map((name) => all.next(request(`more ${name}`))?.id);
  assert.deepEqual(sentTo, numbered(FOLLOWERS));
});

test('nodes are counted, and not what they have in flight', () => {
  const followers = followersOf(['a']);
  for (let part = 0; part < FOLLOWERS; part += 1) followers.add(request('a'));
  assert.equal(followers.next(request('one more')), undefined);
});

test('the followers of one blob are not those of another', () => {
  const { followers } = full();
  assert.equal(followers.next(request('one more', { path: peerPath('b'.repeat(32), DIGEST) })), undefined);
});

test('who follows already is not sent on', () => {
  const { followers } = full();
  assert.equal(followers.next(request('node-3')), undefined);
});

test('who has left makes room', () => {
  const { followers, added } = full();
  added[0]?.leave();
  added[0]?.leave();
  assert.equal(followers.next(request('one more')), undefined);
});

test('a node is sent on to one that is as far along as itself, or served', () => {
  const { followers, added } = full();
  assert.equal(followers.next(request('one more', { from: 1000 })), undefined);
  for (const { follower } of added) if (follower.node === 'node-7') follower.at = 1000;
  assert.equal(followers.next(request('one more', { from: 1000 }))?.id, 'node-7');
});

test('a node is sent on to a member only', () => {
  const followers = followersOf([]);
  for (const name of numbered(FOLLOWERS)) followers.add(request(name));
  assert.equal(followers.next(request('one more')), undefined);
});

test('a node that has come by way of two others is served', () => {
  const { followers } = full();
  assert.notEqual(followers.next(request('one more', { chain: ['first'] })), undefined);
  assert.equal(followers.next(request('one more', { chain: ['first', 'second'] })), undefined);
});

test('a node that was sent on from here and has come back is served, and not with what comes from other nodes', () => {
  const { followers } = full();
  const back = request('one more', { chain: ['here'] });
  assert.equal(followers.next(back), undefined);
  assert.equal(followers.isSentHere(back), false);
  assert.equal(followers.isSentHere(request('one more', { chain: ['another'] })), true);
  assert.equal(followers.isSentHere(request('one more')), false);
});

test('a node is not sent back to where it came from', () => {
  const { followers } = full();
  const chain = ['node-0'];
  const sentTo = numbered(FOLLOWERS).map(() => followers.next(request('one more', { chain }))?.id);
  assert.equal(sentTo.includes('node-0'), false);
});

function reader(until: Promise<unknown>): ContentReader {
  return {
    size: BLOB.length,
    read: async (target, position) => {
      if (position >= BLOB.length / 2) await until;
      return BLOB.copy(target, 0, position, Math.min(BLOB.length, position + target.length));
    },
    close: async () => undefined,
  };
}

/** A node that ten others follow already, and one more that asks it. */
async function busyHolder(t: TestContext) {
  const coordinator = new MemoryCoordinator();
  const end = Promise.withResolvers<void>();
  const asked: { id: string; fromNodes: boolean }[] = [];
  /** Ids of nodes that have nothing. */
  const empty = new Set<string>();
  const nodeOf = async (id: string) => {
    const openHere: OpenHere = async (_upstream, _digest, fromNodes) => {
      asked.push({ id, fromNodes });
      return empty.has(id) ? undefined : reader(end.promise);
    };
    const node = await testNode(t, id, { coordinator, openHere });
    await node.members.beat();
    return node;
  };
  const nodes = [];
  for (const id of numbered(FOLLOWERS)) nodes.push(await nodeOf(id));
  const [last, holder] = [await nodeOf('last'), await nodeOf('holder')];
  const open = (from: typeof last, isTrusted?: (id: string) => boolean) =>
    from.peers.open(holder.members.own, UPSTREAM, DIGEST, {}, undefined, isTrusted);
  for (const node of nodes) {
    const answer = await open(node);
    assert.ok(answer.kind === 'bytes');
    answer.body.on('error', () => undefined).resume();
  }
  asked.length = 0;
  return {
    coordinator,
    holder,
    nodes,
    last,
    empty,
    asked,
    end: end.resolve,
    open: open.bind(undefined, last),
  };
}

test('the eleventh node gets the blob from one of the ten, while it still comes', async (t) => {
  const { open, asked, end } = await busyHolder(t);
  const answer = await open();
  assert.ok(answer.kind === 'bytes');
  assert.deepEqual(answer.passed, ['holder', 'node-0']);
  assert.deepEqual(asked, [{ id: 'node-0', fromNodes: true }]);
  end();
  assert.ok((await buffer(answer.body)).equals(BLOB));
});

test('a follower that is not trusted, has nothing, or is dead leads back to the holder', async (t) => {
  const { open, asked, empty, end, coordinator, holder } = await busyHolder(t);
  const servedByHolder = async (isTrusted?: (id: string) => boolean) => {
    const answer = await open(isTrusted);
    assert.ok(answer.kind === 'bytes');
    assert.deepEqual(answer.passed, ['holder']);
    assert.deepEqual(asked.pop(), { id: 'holder', fromNodes: false });
    answer.body.destroy();
    while (holder.sending() > FOLLOWERS) await setImmediate();
  };
  await servedByHolder((id) => id !== 'node-0');
  empty.add('node-1');
  await servedByHolder();
  const dead = { id: 'node-2', address: 'http://127.0.0.1:9', version: '1' };
  const card = (await writeRecord(holder.secret, 'member', dead)).toString();
  await coordinator.members.beat('node-2', card, 0);
  await holder.members.beat();
  await servedByHolder();
  end();
});

test('wrong bytes count against every node that they came by', async (t) => {
  const { last, holder, nodes, end } = await busyHolder(t);
  const fetches = new SharedFetches({ ...last, upstreamKeyOf: async () => UPSTREAM });
  const upstream: FetchedBlob = { start: 0, ranged: true, size: 0, body: Readable.from([]) };
  const sourceOf = async (digest: Digest) => {
    const blob = await fetches.open('docker.io', digest, {}, undefined, async () => upstream);
    blob.body.destroy();
    return blob.source;
  };
  await holder.leases.claim(UPSTREAM, DIGEST);
  const source = await sourceOf(DIGEST);
  assert.equal(source?.name, 'node');
  source.rejected();
  assert.equal(await sourceOf(DIGEST), undefined, 'the holder is asked no more');
  const other = digestOf(Buffer.from('another blob'));
  await nodes[0]?.leases.claim(UPSTREAM, other);
  assert.equal(await sourceOf(other), undefined, 'nor is the node that passed them on');
  const third = digestOf(Buffer.from('a third blob'));
  await nodes[1]?.leases.claim(UPSTREAM, third);
  assert.equal((await sourceOf(third))?.name, 'node', 'others are');
  end();
});

test('an answer that sends on and is not signed leads nowhere', async (t) => {
  const asking = await testNode(t, 'asking');
  const server = createServer((_, response) => {
    const next = JSON.stringify({ id: 'x', address: 'http://127.0.0.1:9', version: '1' });
    response.writeHead(307, { [HEADERS.next]: next, [HEADERS.signature]: 'no signature' }).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp(t, () => server.close().closeAllConnections());
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const member = { id: 'x', address, version: '1' };
  assert.deepEqual(await asking.peers.open(member, UPSTREAM, DIGEST, {}, undefined), { kind: 'dead' });
});
