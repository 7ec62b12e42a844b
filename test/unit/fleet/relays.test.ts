/** Nodes ask upstream for members of the same fleet, and believe nobody else. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { Member } from '../../../src/fleet/nodes/members.ts';
import { headersOf } from '../../../src/fleet/nodes/peer-requests.ts';
import {
  encode,
  parseRelayPath,
  type RelayRequest,
  relayPath,
} from '../../../src/fleet/relay/relay-messages.ts';
import { answerRelays } from '../../../src/fleet/relay/relay-route.ts';
import { Relays } from '../../../src/fleet/relay/relays.ts';
import { inTurn } from '../../../src/fleet/relay/rendezvous.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { parseRepository } from '../../../src/oci/reference.ts';
import { UpstreamError } from '../../../src/upstream/errors.ts';
import type { BandwidthShare } from '../../../src/upstream/limits/bandwidth-share.ts';
import type { Upstream } from '../../../src/upstream/upstream.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

const KEY = 'a'.repeat(32);
const STRANGER = 'quite another secret, and long enough, too';
const repository = parseRepository('org/app') ?? assert.fail();
const TAGS: RelayRequest = { ask: 'fetchTags', requestId: 'r', repository, query: '' };
const BODY = Buffer.from('{"tags":["1"]}');

async function serve(
  t: TestContext,
  answer: (...on: Parameters<RequestListener>) => unknown,
): Promise<string> {
  const server = createServer((...on) => void answer(...on));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp(t, () => server.close().closeAllConnections());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function upstreamOf(methods: Partial<Upstream>): Upstream {
  const refuse = () => Promise.reject(new UpstreamError('not-found', 'docker.io', 'nothing'));
  return {
    ...{ name: 'docker.io', headManifest: refuse, fetchManifest: refuse, headBlob: refuse },
    ...{ fetchBlob: refuse, fetchTags: refuse, fetchReferrers: refuse, close: async () => undefined },
    ...methods,
  };
}

/** A node that asks, and one that answers with `upstream`. */
async function two(
  t: TestContext,
  { upstream = {}, secret }: { upstream?: Partial<Upstream>; secret?: string } = {},
) {
  const coordinator = new MemoryCoordinator();
  coordinator.now = FakeClock.START;
  const asking = await testNode(t, 'asking', { coordinator, ...(secret === undefined ? {} : { secret }) });
  const helper = await testNode(t, 'helper');
  const bandwidth = { openShare: () => assert.fail() as BandwidthShare, spendAhead: () => undefined };
  const way = { upstream: upstreamOf({ fetchTags: async () => ({ body: BODY }), ...upstream }), bandwidth };
  const route = answerRelays({ ...helper, ownWay: async (key) => (key === KEY ? way : undefined) });
  const address = await serve(t, (request, response) => void route(request, response));
  const relaysTo = (addresses: string[], key: string | undefined = KEY) => {
    const own = asking.members.own;
    const others = addresses.map((one, at): Member => ({ id: `n${at}`, address: one, version: '1' }));
    const members = { own, all: [own, ...others], now: () => asking.members.now() };
    const relays = new Relays({ ...asking, members, upstreamKeyOf: async () => key });
    cleanUp(t, () => relays.close());
    return relays;
  };
  return { asking, helper, address, relaysTo };
}

test('a member is asked, and what upstream says through it is believed', async (t) => {
  const { address, relaysTo } = await two(t);
  const relayed = await relaysTo([address]).ask('docker.io', TAGS, undefined);
  assert.ok(relayed?.kind === 'whole' && relayed.bytes.equals(BODY));
});

test('who does not know the secret is told nothing, and is believed nothing', async (t) => {
  const { address, relaysTo } = await two(t, { secret: STRANGER });
  assert.equal(await relaysTo([address]).ask('docker.io', TAGS, undefined), undefined);
  assert.equal((await fetch(address + relayPath(KEY, TAGS))).status, 404);
});

test('an answer that is not signed, or whose body is another one, is none', async (t) => {
  const { relaysTo } = await two(t);
  const answer = encode({ kind: 'whole', digest: digestOf(BODY) });
  const forged = await serve(t, (_, response) =>
    response.writeHead(200, { 'millpond-answer': answer, 'millpond-signature': '0'.repeat(64) }).end(BODY),
  );
  assert.equal(await relaysTo([forged]).ask('docker.io', TAGS, undefined), undefined);
  const { address } = await two(t);
  // A proxy in between changes the body, and can change nothing else.
  const changed = await serve(t, async ({ url = '', headers }, response) => {
    const reply = await fetch(address + url, { headers: headers as Record<string, string> });
    response.writeHead(200, Object.fromEntries(reply.headers)).end('{"tags":["2"]}');
    await reply.arrayBuffer();
  });
  assert.equal(await relaysTo([changed]).ask('docker.io', TAGS, undefined), undefined);
});

test('a request counts once, and for what it was signed for', async (t) => {
  const { helper, address } = await two(t);
  const signed = {
    path: relayPath(KEY, TAGS),
    from: 0,
    to: undefined,
    node: 'asking',
    time: helper.members.now(),
  };
  const send = async (nonce: string, path = signed.path) => {
    const request = { ...signed, nonce };
    const headers = headersOf({ ...request, path }, await helper.signatures.signRequest(request));
    const reply = await fetch(address + path, { headers });
    await reply.arrayBuffer();
    return reply.status;
  };
  assert.equal(await send('once'), 200);
  assert.equal(await send('once'), 401);
  assert.equal(await send('other', relayPath(KEY, { ...TAGS, query: 'n=1' })), 401);
  assert.equal(await send('no request', `/fleet/relay/${KEY}/abc`), 404);
  const wrong = relayPath(KEY, { ...TAGS, repository: '../secret' as typeof repository });
  assert.equal(parseRelayPath(wrong), undefined);
});

test('a node that cannot help is not asked again for half a minute, and the next one is', async (t) => {
  let asked = 0;
  const { asking, address, relaysTo } = await two(t, {
    upstream: {
      fetchTags: () => {
        asked += 1;
        return Promise.reject(new UpstreamError('unavailable', 'docker.io', 'the connection was refused'));
      },
    },
  });
  const able = await two(t);
  assert.ok(await relaysTo([address, able.address]).ask('docker.io', TAGS, undefined));
  const relays = relaysTo([address]);
  asked = 0;
  for (let time = 0; time < 3; time += 1)
    assert.equal(await relays.ask('docker.io', TAGS, undefined), undefined);
  assert.equal(asked, 1);
  asking.clock.advance(30_000);
  await relays.ask('docker.io', TAGS, undefined);
  assert.equal(asked, 2);
});

test('a node that does not answer in five seconds is given up', async (t) => {
  const { asking, address, relaysTo } = await two(t);
  let wasAsked = 0;
  const silent = await serve(t, () => {
    wasAsked += 1;
    asking.clock.advance(5_000);
  });
  // Which of the two is asked first is by their names.
  for (const addresses of [
    [silent, address],
    [address, silent],
  ])
    assert.ok(await relaysTo(addresses).ask('docker.io', TAGS, undefined));
  assert.equal(wasAsked, 1);
});

test('nobody is asked if it is not known who logs in, and a node without that upstream is of no help', async (t) => {
  const { address, relaysTo } = await two(t);
  assert.equal(await relaysTo([address], 'b'.repeat(32)).ask('docker.io', TAGS, undefined), undefined);
  const relays = new Relays({
    ...(await two(t)).asking,
    upstreamKeyOf: async () => undefined,
  });
  cleanUp(t, () => relays.close());
  assert.equal(await relays.ask('docker.io', TAGS, undefined), undefined);
});

test('each thing has a node of its own, and keeps it when another node goes', () => {
  const members = ['a', 'b', 'c', 'd'].map((id): Member => ({ id, address: 'http://x', version: '1' }));
  const firsts = new Map<string, number>();
  for (let at = 0; at < 400; at += 1) {
    const order = inTurn(members, `thing ${at}`).map(({ id }) => id);
    assert.deepEqual(
      inTurn(members.toReversed(), `thing ${at}`).map(({ id }) => id),
      order,
    );
    const [first = '', second] = order;
    firsts.set(first, (firsts.get(first) ?? 0) + 1);
    const [next] = inTurn(
      members.filter(({ id }) => id !== first),
      `thing ${at}`,
    );
    assert.equal(next?.id, second);
  }
  for (const { id } of members) assert.ok((firsts.get(id) ?? 0) > 50, `${id}: ${firsts.get(id)}`);
});
