/** Engines that are not set up as they should be: a clear message at the start, or a fault later that no pull sees. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { BUCKET_ENVIRONMENT } from '../helpers/scripted-bucket.ts';

const skip = missingPrograms('redis-server');
const BEAT_MS = 5_000;
const MINUTE_MS = 60_000;
const PREFIX = 'millpond/';

type Line = Record<string, unknown>;
const errorOf = ({ err }: Line) => (err as { message: string } | undefined)?.message ?? '';

async function logged({ log }: FleetNode, is: (line: Line) => boolean): Promise<Line> {
  for (;;) {
    const line = log.find(is);
    if (line !== undefined) return line;
    await setImmediate();
  }
}

async function pulls(fleet: TestFleet, node: FleetNode, seed: string): Promise<void> {
  const blob = noise(10_000, seed);
  const reply = await node.get(`/v2/org/app/blobs/${fleet.upstream.addContent(blob)}`);
  assert.ok(reply.body.equals(blob));
}

for (const [what, code, status, said] of [
  [
    'does not exist',
    'NoSuchBucket',
    404,
    'the bucket does not exist: make it, or change fleet.objects.bucket',
  ],
  [
    'is in another region',
    'PermanentRedirect',
    301,
    'the bucket is in another region: change fleet.objects.region',
  ],
  [
    'is in another region, as the signature says',
    'AuthorizationHeaderMalformed',
    400,
    'the bucket is in another region: change fleet.objects.region',
  ],
  [
    'refuses the credentials',
    'InvalidAccessKeyId',
    403,
    'the object store refuses us (InvalidAccessKeyId): check fleet.objects.credentials and the policy of the bucket',
  ],
] as const) {
  test(`a bucket that ${what}: the start says what to change, and pulls go on`, async (t) => {
    const fleet = await TestFleet.start(t);
    fleet.bucket.script((_, reply) => {
      reply.fails = { status, code };
    });
    const node = await fleet.node();
    const line = await logged(node, ({ msg }) =>
      String(msg).startsWith('the object store of the fleet cannot'),
    );
    assert.ok(errorOf(line).startsWith(said), errorOf(line));
    await pulls(fleet, node, 'blob');
  });
}

test('a bucket that becomes read-only: a line a minute says so, what waits is counted, and is written once it can be', async (t) => {
  const fleet = await TestFleet.start(t);
  const node = await fleet.node();
  fleet.bucket.script(({ operation }, reply) => {
    if (operation === 'put') reply.fails = { status: 403, code: 'AccessDenied' };
  });
  for (const seed of ['a', 'b', 'c']) await pulls(fleet, node, seed);
  const isSaid = ({ msg }: Line) => msg === 'an engine of the fleet refuses what it is asked';
  assert.match(
    errorOf(await logged(node, isSaid)),
    /refuses us \(AccessDenied\): check .* the policy of the bucket/,
  );
  await node.idle();
  while ((await node.metric('millpond_upload_queue_bytes')) < 30_000) await setImmediate();
  assert.equal(node.log.filter(isSaid).length, 1);
  fleet.bucket.script(() => undefined);
  node.clock.advance(MINUTE_MS);
  await node.uploaded();
  assert.equal(await node.metric('millpond_upload_queue_bytes'), 0);
});

test('a bucket that keeps old versions is warned of', async (t) => {
  const fleet = await TestFleet.start(t);
  fleet.bucket.isVersioned = true;
  await logged(await fleet.node(), ({ msg }) => String(msg).startsWith('the bucket keeps old versions'));
});

for (const [status, code] of [
  [403, 'AccessDenied'],
  [501, 'NotImplemented'],
] as const) {
  test(`a store that does not say whether it keeps old versions (${code}) is used all the same`, async (t) => {
    const fleet = await TestFleet.start(t);
    fleet.bucket.script(({ operation }, reply) => {
      if (operation === 'versioning') reply.fails = { status, code };
    });
    const node = await fleet.node();
    while (fleet.bucket.count('versioning') === 0) await setImmediate();
    await pulls(fleet, node, 'blob');
    await node.uploaded();
    assert.ok([...fleet.bucket.objects.keys()].some((name) => name.startsWith(`${PREFIX}blobs/`)));
    assert.deepEqual(
      node.log.filter(({ level }) => level === 'warn' || level === 'error'),
      [],
    );
  });
}

test('a store that ignores If-None-Match is found out at the start, and used', async (t) => {
  const fleet = await TestFleet.start(t);
  fleet.bucket.ignoresConditions = true;
  const node = await fleet.node();
  await logged(node, ({ msg }) => String(msg).startsWith('the object store ignores If-None-Match'));
  await pulls(fleet, node, 'blob');
  await node.uploaded();
  assert.equal(await node.metric('millpond_fleet_up', { engine: 'objects' }), 1);
});

async function withCoordinator(
  t: TestContext,
  options: Parameters<typeof startCoordinator>[1],
  given: Record<string, unknown> = {},
) {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: (await startCoordinator(t, options)).url, ...given };
  const environment = { ...BUCKET_ENVIRONMENT, FLEET_PASSWORD: 'a password that is wrong' };
  const node = await fleet.node({ moreOfFleet: { coordinator, listen: '127.0.0.1:0' }, environment });
  return { fleet, node };
}

for (const [what, given] of [
  ['and gets none', {}],
  ['and gets a wrong one', { password: { env: 'FLEET_PASSWORD' } }],
] as const) {
  test(`a coordinator that wants a password ${what}: the log says what to check, and pulls go on`, {
    skip,
  }, async (t) => {
    const { fleet, node } = await withCoordinator(t, { password: 'a password that is right' }, given);
    const refusals = ({ engine, err }: Line) => engine === 'coordinator' && err !== undefined;
    await pulls(fleet, node, 'blob');
    let line = await logged(node, refusals);
    // The first try may come before there is a connection.
    while (!errorOf(line).includes('refuses us')) {
      node.log.length = 0;
      node.clock.advance(MINUTE_MS);
      line = await logged(node, refusals);
    }
    assert.match(
      errorOf(line),
      /^the coordinator refuses us \((?:NOAUTH|WRONGPASS)\): check fleet\.coordinator\.username and password/,
    );
    assert.equal(await node.metric('millpond_fleet_up', { engine: 'coordinator' }), 0);
  });
}

test('a coordinator that may drop what is in use is warned of', { skip }, async (t) => {
  const { node } = await withCoordinator(t, { set: ['--maxmemory-policy', 'allkeys-lru'] });
  node.clock.advance(BEAT_MS);
  const line = await logged(node, ({ msg }) => msg === 'the coordinator should be set up otherwise');
  assert.match(String(line['what']), /^its maxmemory-policy is allkeys-lru/);
});

test('a coordinator that does not say how it is set up is used all the same', { skip }, async (t) => {
  const { fleet, node } = await withCoordinator(t, { set: ['--rename-command', 'INFO', ''] });
  while ((await node.metric('millpond_fleet_members')) < 1) {
    node.clock.advance(BEAT_MS);
    await setImmediate();
  }
  await pulls(fleet, node, 'blob');
  assert.equal(await node.metric('millpond_fleet_up', { engine: 'coordinator' }), 1);
});
