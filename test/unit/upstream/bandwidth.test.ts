import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import type { BandwidthShare } from '../../../src/upstream/limits/bandwidth-share.ts';
import { Bandwidths } from '../../../src/upstream/limits/bandwidths.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const MIB = 1024 * 1024;
const LIMIT = 50 * MIB;
const CHUNK = 64 * 1024;
const SECONDS = 20;
/** How far the clock moves at a time. */
const STEP_MS = 5;

interface TestFetch {
  share: BandwidthShare;
  bytes: number;
}

function setUp(server: number | undefined, upstreams: Record<string, number | undefined> = {}) {
  const clock = new FakeClock();
  clock.impatient = false;
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const bandwidths = new Bandwidths({ clock, metrics });
  bandwidths.setLimits({ server, upstreams: new Map(Object.entries(upstreams)) });
  const stop = new AbortController();

  /** @param options.everyMs upstream needs this long for a chunk, on each connection */
  const begin = (
    upstream: string,
    {
      connections = 1,
      client = true,
      everyMs = 0,
    }: { connections?: number; client?: boolean; everyMs?: number } = {},
  ): TestFetch => {
    const share = bandwidths.of(upstream).openShare();
    if (client) share.addClient();
    const fetch = { share, bytes: 0 };
    const connection = async () => {
      for (;;) {
        if (everyMs > 0) await clock.sleep(everyMs, stop.signal);
        for (let left = CHUNK; left > 0; ) {
          const taken = share.isFree ? left : await share.take(left, stop.signal);
          left -= taken;
          fetch.bytes += taken;
          if (share.isFree) await clock.sleep(STEP_MS, stop.signal);
        }
      }
    };
    for (let at = 0; at < connections; at += 1)
      connection().catch((error: unknown) => assert.ok(stop.signal.aborted, String(error)));
    return fetch;
  };

  const pass = async (seconds: number, step: () => void = () => undefined) => {
    for (let ms = 0; ms < seconds * 1000; ms += STEP_MS) {
      clock.advance(STEP_MS);
      step();
      await setImmediate();
    }
  };
  /** Returns what each has fetched in `seconds`. */
  const fetchedIn = async (seconds: number, fetches: readonly TestFetch[], step?: () => void) => {
    const before = fetches.map(({ bytes }) => bytes);
    await pass(seconds, step);
    return fetches.map(({ bytes }, at) => bytes - (before[at] ?? 0));
  };
  const waited = async (upstream: string) => {
    const text = await metrics.registry.getSingleMetricAsString(
      'millpond_upstream_bandwidth_wait_seconds_total',
    );
    const line = text.split('\n').find((each) => each.includes(`{upstream="${upstream}"}`));
    return line === undefined ? undefined : Number(line.split(' ').at(-1));
  };
  return { clock, bandwidths, begin, pass, fetchedIn, waited, stop };
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0);

/** Within 5 %. */
function assertNear(actual: number | undefined, expected: number, what: string): void {
  const share = (actual ?? Number.NaN) / expected;
  assert.ok(share > 0.95 && share < 1.05, `${what}: ${actual} is ${share.toFixed(3)} of ${expected}`);
}

suite('a limit is held within 5 % over 20 s, and its fetches have equal parts', () => {
  for (const limit of [1024, LIMIT]) {
    for (const count of [1, 4, 16]) {
      test(`${count} fetches share ${limit} bytes a second`, async () => {
        const { begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': limit });
        const fetches = Array.from({ length: count }, (_, at) =>
          begin('docker.io', { connections: 1 + (at % 4) }),
        );
        const fetched = await fetchedIn(SECONDS, fetches);
        stop.abort();
        assertNear(sum(fetched), limit * SECONDS, 'all together');
        for (const bytes of fetched) assertNear(bytes, (limit * SECONDS) / count, 'one');
      });
    }
  }
});

test('what a slow upstream leaves of its part goes to the others', async () => {
  const { begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': LIMIT });
  const slow = Array.from({ length: 15 }, () => begin('docker.io', { everyMs: 100 }));
  const fast = begin('docker.io');
  const [fastBytes = 0, ...slowBytes] = await fetchedIn(SECONDS, [fast, ...slow]);
  stop.abort();
  for (const bytes of slowBytes) assertNear(bytes, CHUNK * 10 * SECONDS, 'slow');
  assertNear(fastBytes, LIMIT * SECONDS - sum(slowBytes), 'fast');
});

test('fetches that wait for upstream, or are short, cost the others nothing', async () => {
  const { bandwidths, begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': LIMIT });
  const one = begin('docker.io');
  let short = bandwidths.of('docker.io').openShare();
  let steps = 0;
  const [bytes] = await fetchedIn(SECONDS, [one], () => {
    steps += 1;
    if (steps % 5 > 0) return;
    short.close();
    short = bandwidths.of('docker.io').openShare();
    short.addClient();
  });
  stop.abort();
  assertNear(bytes, LIMIT * SECONDS, 'the long one');
});

suite('work in the background', () => {
  test('has at most a tenth while a client waits, and all of it otherwise', async () => {
    const { begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': LIMIT });
    const background = [1, 2, 3].map(() => begin('docker.io', { client: false, connections: 4 }));
    assertNear(sum(await fetchedIn(SECONDS, background)), LIMIT * SECONDS, 'alone');
    const client = begin('docker.io');
    const [clientBytes, ...backgroundBytes] = await fetchedIn(SECONDS, [client, ...background]);
    assert.ok(sum(backgroundBytes) <= LIMIT * SECONDS * 0.1 * 1.01, String(sum(backgroundBytes)));
    assertNear(sum(backgroundBytes), LIMIT * SECONDS * 0.1, 'background');
    assertNear(clientBytes, LIMIT * SECONDS * 0.9, 'client');
    client.share.close();
    stop.abort();
  });

  test('has no more when upstream is slow to send what the client waits for', async () => {
    const { begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': LIMIT });
    const client = begin('docker.io', { everyMs: 1000 });
    const background = begin('docker.io', { client: false });
    const [clientBytes, bytes = 0] = await fetchedIn(SECONDS, [client, background]);
    stop.abort();
    assertNear(clientBytes, CHUNK * SECONDS, 'client');
    assertNear(bytes, LIMIT * SECONDS * 0.1, 'background');
  });

  test('has what a client needs as soon as one joins, and no longer than it stays', async () => {
    const { begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': LIMIT });
    const joined = begin('docker.io', { client: false });
    const other = begin('docker.io');
    joined.share.addClient();
    joined.share.addClient();
    joined.share.removeClient();
    for (const bytes of await fetchedIn(1, [joined, other])) assertNear(bytes, LIMIT / 2, 'both for clients');
    joined.share.removeClient();
    const [background, client] = await fetchedIn(1, [joined, other]);
    stop.abort();
    assertNear(background, LIMIT * 0.1, 'background');
    assertNear(client, LIMIT * 0.9, 'client');
  });

  test('of one upstream makes room for clients of another, if both share the limit of the mirror', async () => {
    const { begin, fetchedIn, stop } = setUp(LIMIT);
    const [background, client] = await fetchedIn(SECONDS, [
      begin('quay.io', { client: false, connections: 4 }),
      begin('docker.io'),
    ]);
    stop.abort();
    assertNear(background, LIMIT * SECONDS * 0.1, 'background');
    assertNear(client, LIMIT * SECONDS * 0.9, 'client');
  });
});

test('both limits hold: of the upstream, and of the mirror', async () => {
  const { begin, fetchedIn, stop } = setUp(LIMIT, { 'docker.io': LIMIT / 5, 'quay.io': LIMIT * 2 });
  const [hub, ...quay] = await fetchedIn(SECONDS, [
    begin('docker.io'),
    begin('quay.io'),
    begin('quay.io', { connections: 4 }),
  ]);
  stop.abort();
  assertNear(hub, (LIMIT * SECONDS) / 5, 'docker.io');
  for (const bytes of quay) assertNear(bytes, LIMIT * SECONDS * 0.4, 'quay.io');
});

test('a limit can be set, changed and removed while fetches run', async () => {
  const { bandwidths, begin, fetchedIn, stop } = setUp(undefined);
  const one = begin('docker.io');
  const [free = 0] = await fetchedIn(1, [one]);
  const set = (limit: number | undefined) =>
    bandwidths.setLimits({ server: undefined, upstreams: new Map([['docker.io', limit]]) });
  set(LIMIT / 50);
  assertNear((await fetchedIn(SECONDS, [one]))[0], (LIMIT / 50) * SECONDS, 'limited');
  set(1024);
  assertNear((await fetchedIn(SECONDS, [one]))[0], 1024 * SECONDS, 'limited more');
  set(LIMIT / 50);
  assertNear((await fetchedIn(SECONDS, [one]))[0], (LIMIT / 50) * SECONDS, 'limited less');
  bandwidths.setLimits({ server: LIMIT / 100, upstreams: new Map() });
  assertNear((await fetchedIn(SECONDS, [one]))[0], (LIMIT / 100) * SECONDS, 'limited by the mirror');
  bandwidths.setLimits({ server: undefined, upstreams: new Map() });
  assertNear((await fetchedIn(1, [one]))[0], free, 'free again');
  stop.abort();
});

test('manifests do not wait, but count', async () => {
  const { bandwidths, begin, fetchedIn, stop } = setUp(LIMIT, { 'docker.io': LIMIT });
  const one = begin('docker.io');
  const manifest = LIMIT / 1000;
  const [bytes = 0] = await fetchedIn(SECONDS, [one], () => bandwidths.of('docker.io').spendAhead(manifest));
  stop.abort();
  assertNear(bytes + (manifest * SECONDS * 1000) / STEP_MS, LIMIT * SECONDS, 'all');
});

test('a large list is no outage for blobs', async () => {
  const { bandwidths, begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': 1024 });
  const one = begin('docker.io');
  bandwidths.of('docker.io').spendAhead(8 * MIB);
  const [bytes = 0] = await fetchedIn(SECONDS, [one]);
  stop.abort();
  assertNear(bytes, 1024 * 10, 'after ten seconds');
});

test('a clock that is turned back stops no fetch', async () => {
  const { clock, begin, fetchedIn, stop } = setUp(undefined, { 'docker.io': LIMIT });
  clock.advance(-3_600_000);
  const [bytes] = await fetchedIn(SECONDS, [begin('docker.io')]);
  stop.abort();
  assertNear(bytes, LIMIT * SECONDS, 'after that');
});

test('a fetch that is stopped waits no longer', async () => {
  const { clock, bandwidths } = setUp(undefined, { 'docker.io': 1024 });
  const share = bandwidths.of('docker.io').openShare();
  const stop = new AbortController();
  const taken = share.take(CHUNK, stop.signal);
  await clock.waited();
  stop.abort(new Error('stopped'));
  await assert.rejects(taken, { name: 'AbortError' });
});

test('the metric says how long fetches waited, however many their connections', async () => {
  const { begin, pass, waited, stop } = setUp(undefined, { 'docker.io': 1024, 'quay.io': undefined });
  assert.equal(await waited('docker.io'), 0);
  assert.equal(await waited('quay.io'), undefined);
  begin('docker.io', { connections: 4 });
  begin('docker.io');
  begin('quay.io');
  await pass(10);
  stop.abort();
  assertNear(await waited('docker.io'), 20, 'two fetches');
  assert.equal(await waited('quay.io'), undefined);
});
