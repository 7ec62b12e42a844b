/** What nodes tell each other of an upstream's limits, and what they do not believe. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CoordinatedLimits } from '../../../src/fleet/coordinator/coordinator.ts';
import { EngineError } from '../../../src/fleet/engines/errors.ts';
import { UpstreamLimits } from '../../../src/fleet/limits/upstream-limits.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

interface Settings {
  egress?: string;
  secret?: string;
  upstreamKey?: string;
  limits?: CoordinatedLimits;
}

function fleet(t: TestContext) {
  const coordinator = new MemoryCoordinator();
  let count = 0;
  const start = async ({ egress, secret, upstreamKey = 'key', limits }: Settings = {}) => {
    count += 1;
    const node = await testNode(t, `n${count}`, { coordinator, ...(secret === undefined ? {} : { secret }) });
    coordinator.now = node.clock.now();
    const abort = new AbortController();
    t.after(() => abort.abort());
    const shared = new UpstreamLimits('docker.io', {
      ...{ ...node, limits: limits ?? coordinator.limits, now: () => node.members.now() },
      ...{ upstreamKeyOf: async () => upstreamKey, egress, signal: abort.signal },
    });
    const pause = async () => (await shared.learn('manifest', undefined)).pauses.get('manifest');
    return { ...node, shared, pause };
  };
  return { coordinator, start };
}

test('a pause lasts as long as upstream said, by the clock of the coordinator', async (t) => {
  const { coordinator, start } = fleet(t);
  const [a, b] = [await start(), await start()];
  await a.shared.tellPause('manifest', 30_000, undefined);
  assert.equal(await b.pause(), b.clock.now() + 30_000);
  coordinator.now += 20_000;
  assert.equal(await b.pause(), b.clock.now() + 10_000);
  coordinator.now += 10_000;
  assert.equal(await b.pause(), undefined);
});

test('a shorter pause does not end a longer one, and a longer one counts', async (t) => {
  const { start } = fleet(t);
  const [a, b] = [await start(), await start()];
  await a.shared.tellPause('manifest', 30_000, undefined);
  await b.shared.tellPause('manifest', 5_000, undefined);
  assert.equal(await a.pause(), a.clock.now() + 30_000);
  await b.shared.tellPause('manifest', 60_000, undefined);
  assert.equal(await a.pause(), a.clock.now() + 60_000);
});

test('only nodes of the same egress, and without it of the same source, and of the same upstream, are told', async (t) => {
  const { start } = fleet(t);
  const teller = await start();
  await teller.shared.tellPause('manifest', 30_000, '192.0.2.1');
  const isTold = async (settings: Settings, source?: string) =>
    (await (await start(settings)).shared.learn('manifest', source)).pauses.size === 1;
  assert.equal(await isTold({}, '192.0.2.1'), true);
  assert.equal(await isTold({}, '192.0.2.2'), false);
  assert.equal(await isTold({ upstreamKey: 'other' }, '192.0.2.1'), false);
  assert.equal(await isTold({ egress: '192.0.2.1' }, '192.0.2.1'), false);
  const atSite = await start({ egress: 'site-a' });
  await atSite.shared.tellPause('manifest', 30_000, '192.0.2.1');
  assert.equal(
    await isTold({ egress: 'site-a' }, '192.0.2.2'),
    true,
    'the egress counts, whatever upstream says',
  );
  assert.equal(await isTold({ egress: 'site-b' }, '192.0.2.1'), false);
});

test('a pause that no node of this fleet has signed is not believed, and counted', async (t) => {
  const { coordinator, start } = fleet(t);
  const [stranger, b] = [
    await start({ secret: 'quite another secret, and long enough, too' }),
    await start(),
  ];
  await stranger.shared.tellPause('manifest', 30_000, undefined);
  assert.equal(coordinator.keptLimits.size, 1);
  assert.equal(await b.pause(), undefined);
  assert.match(await b.metrics.registry.metrics(), /records_refused_total\{engine="coordinator"\} 1/);
});

test('a pause is not believed for another kind, nor when it is kept once more after it has ended', async (t) => {
  const { coordinator, start } = fleet(t);
  const [a, b] = [await start(), await start()];
  await a.shared.tellPause('manifest', 30_000, undefined);
  const [[key, kept] = assert.fail()] = [...coordinator.keptLimits];
  coordinator.keptLimits.set(key.replace('manifest', 'blob'), { ...kept, name: 'blob' });
  assert.deepEqual([...(await b.shared.learn('manifest', undefined)).pauses.keys()], ['manifest']);
  coordinator.now += 61_000;
  coordinator.keptLimits.set(key, { ...kept, at: coordinator.now });
  assert.equal(await b.pause(), undefined);
});

test('layers that are asked for within a second learn once, all else each time', async (t) => {
  const { coordinator, start } = fleet(t);
  const a = await start();
  coordinator.commands.length = 0;
  for (let layer = 0; layer < 20; layer += 1) await a.shared.learn('blob', undefined);
  assert.deepEqual(coordinator.commands, ['limits']);
  a.clock.advance(1_000);
  await a.shared.learn('blob', undefined);
  for (const kind of ['manifest', 'tags', 'referrers'] as const) await a.shared.learn(kind, undefined);
  assert.equal(coordinator.commands.length, 5);
});

test('the pulls that are left are told at most once a second, the last of them last', async (t) => {
  const { coordinator, start } = fleet(t);
  const [a, b] = [await start(), await start()];
  const told = () => coordinator.commands.filter((command) => command === 'keep limit').length;
  const learned = async () => (await b.shared.learn('manifest', undefined)).count?.remaining;
  for (const remaining of [76, 75, 74]) a.shared.tellCount({ remaining, windowMs: 3_600_000 }, undefined);
  await a.clock.waited();
  assert.equal(told(), 1);
  a.clock.advance(1_000);
  while ((await learned()) !== 74);
  assert.equal(told(), 2);
});

test('whoever cannot reach the coordinator goes on alone', async (t) => {
  const { start } = fleet(t);
  const fail = () => Promise.reject(new EngineError('unavailable', 'it is away'));
  const a = await start({ limits: { keep: fail, all: fail } });
  await a.shared.tellPause('manifest', 30_000, undefined);
  assert.equal(await a.pause(), undefined);
});
