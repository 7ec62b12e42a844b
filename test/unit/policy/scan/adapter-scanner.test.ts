/** Harbor's pluggable scanner API, against a server that speaks it. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { AdapterScanner } from '../../../../src/policy/parts/scan/adapter/adapter-scanner.ts';
import { openScanner } from '../../../../src/policy/parts/scan/open-scanner.ts';
import { cleanUp } from '../../../helpers/cleanup.ts';
import { FakeAdapter } from '../../../helpers/fake-adapter.ts';
import { FakeClock } from '../../../helpers/fake-clock.ts';
import { buildImage } from '../../../helpers/images.ts';
import { openRoute, scanSettings, silent, subjectOf, TestContent } from '../../../helpers/scans.ts';

const IMAGE = buildImage({ layers: [100_000, 10] });
const SUBJECT = subjectOf(IMAGE.top);
const never = new AbortController().signal;

async function setUp(t: TestContext, { concurrency = 2, path = '' } = {}) {
  const adapter = await FakeAdapter.start(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const route = await openRoute(t);
  const settings = { adapter: `${adapter.url}${path}`, timeout: 60_000, concurrency };
  const scanner = new AdapterScanner(settings, { clock, logger: silent, route });
  cleanUp(t, () => scanner[Symbol.asyncDispose]());
  const content = new TestContent(IMAGE);
  const scan = (signal = never) => scanner.scan(SUBJECT, content, signal);
  return { adapter, clock, scanner, content, scan };
}

/** Lets the clock go on until the promise is settled. @param isMoving false: it stands still */
async function passing<T>(clock: FakeClock, promise: Promise<T>, isMoving = () => true): Promise<T> {
  const state = { isOver: false };
  const handled = promise.finally(() => {
    state.isOver = true;
  });
  handled.catch(() => undefined);
  while (!state.isOver) {
    if (isMoving()) clock.advance(100);
    await setImmediate();
  }
  return handled;
}

test('an adapter pulls the image from the route with its token, and its report is awaited', async (t) => {
  const { adapter, clock, content, scan } = await setUp(t);
  adapter.vulnerabilities = [
    { id: 'CVE-1', package: 'zlib', version: '1.0', fix_version: '1.1', severity: 'High', links: [] },
  ];
  adapter.pending = 2;
  const before = clock.now();
  const reports = () => adapter.requests.filter((name) => name.endsWith('/report')).length;
  // A process reads the report, and it does not run by this clock.
  const outcome = await passing(clock, scan(), () => reports() < 3);
  assert.deepEqual(outcome, {
    kind: 'report',
    report: {
      findings: [
        {
          ...{ kind: 'vulnerability', id: 'CVE-1', severity: 'high', package: 'zlib' },
          ...{ version: '1.0', fixedIn: '1.1' },
        },
      ],
      recognised: true,
    },
  });
  assert.ok(clock.now() - before >= 14_000, 'it waited twice as long as Refresh-After said');
  assert.equal(reports(), 3);
  assert.equal(content.open, 0);
  const [{ registry, artifact } = { registry: { url: '', authorization: '' }, artifact: {} }] = adapter.scans;
  assert.deepEqual(artifact, {
    ...{ repository: 'quarantine', digest: SUBJECT.digest, mime_type: SUBJECT.mediaType },
  });
  const { authorization } = registry;
  const late = await request(`${registry.url}/v2/`, { headers: { authorization } });
  await late.body.dump();
  assert.equal(late.statusCode, 401, 'the token is worth nothing after the scan');
});

test('an adapter of version 1.0 is understood, and one behind a path', async (t) => {
  const { adapter, scan } = await setUp(t);
  adapter.produces = ['application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0'];
  adapter.pending = 0;
  assert.equal((await scan()).kind, 'report');
  const below = await setUp(t, { path: '/trivy' });
  assert.equal((await below.scan()).kind, 'unavailable');
  assert.deepEqual(below.adapter.requests, ['GET /trivy/api/v1/metadata']);
});

test('an adapter that cannot be reached, is not well or cannot report on images is unavailable', async (t) => {
  const { adapter, scan } = await setUp(t);
  const answers: [string, () => void][] = [
    ['500', () => adapter.answers.set('GET /api/v1/metadata', (response) => response.writeHead(500).end())],
    ['no JSON', () => adapter.answers.set('GET /api/v1/metadata', (response) => response.end('<html>'))],
    [
      'only SBOMs',
      () => {
        adapter.answers.clear();
        adapter.produces = ['application/vnd.security.sbom.report+json; version=1.0'];
      },
    ],
  ];
  for (const [what, change] of answers) {
    change();
    assert.equal((await scan()).kind, 'unavailable', what);
  }
  assert.deepEqual(adapter.scans, [], 'it got no image');
  await adapter.stop();
  assert.equal((await scan()).kind, 'unavailable');
});

test('an adapter that does not answer when it is asked what it can do is unavailable', async (t) => {
  const { adapter, clock, scan } = await setUp(t);
  adapter.answers.set('GET /api/v1/metadata', () => undefined);
  assert.equal((await passing(clock, scan())).kind, 'unavailable');
});

test('what goes wrong after it was well is a failure on this image, even that it is gone', async (t) => {
  const REPORT = 'GET /api/v1/scan/ID/report';
  const cases: [string, (adapter: FakeAdapter) => void, RegExp][] = [
    [
      'refused',
      ({ answers }) => answers.set('POST /api/v1/scan', (response) => response.writeHead(422).end()),
      /422 instead of 202/,
    ],
    [
      'a name that leads elsewhere',
      ({ answers }) =>
        answers.set('POST /api/v1/scan', (response) => response.writeHead(202).end('{"id":"../../admin"}')),
      /something else than the API says/,
    ],
    ['failed', ({ answers }) => answers.set(REPORT, (response) => response.writeHead(500).end()), /500/],
    [
      'gone',
      (adapter) => adapter.answers.set(REPORT, (response) => void response.socket?.destroy()),
      /the connection to it broke off/,
    ],
    [
      'another image',
      (adapter) => {
        adapter.change = (report) => {
          report['artifact'] = { digest: `sha256:${'0'.repeat(64)}` };
        };
      },
      /about another image/,
    ],
    [
      'no list',
      (adapter) => {
        adapter.vulnerabilities = null;
      },
      /not as it should be at vulnerabilities/,
    ],
  ];
  for (const [what, change, reason] of cases) {
    const { adapter, scan } = await setUp(t);
    adapter.pending = 0;
    change(adapter);
    const outcome = await scan();
    assert.equal(outcome.kind, 'failed', what);
    assert.match('reason' in outcome ? outcome.reason : '', reason);
  }
});

test('a report that never ends is not read to the end', async (t) => {
  const { adapter, scan } = await setUp(t);
  adapter.answers.set('GET /api/v1/scan/ID/report', (response) => {
    const more = () => void response.write(Buffer.alloc(1024 * 1024, ' '), (error) => error ?? more());
    more();
  });
  assert.equal((await scan()).kind, 'failed');
});

test('a report that is never ready is awaited no longer than the timeout, and asked for no oftener than once a second', async (t) => {
  const { adapter, clock, scan } = await setUp(t);
  adapter.answers.set('GET /api/v1/scan/ID/report', (response) =>
    response.writeHead(302, { 'refresh-after': '0' }).end(),
  );
  assert.deepEqual(await passing(clock, scan()), { kind: 'failed', reason: 'it took too long' });
  assert.ok(adapter.requests.length <= 63, String(adapter.requests.length));
});

test('bytes that upstream does not give are an error of upstream, whatever the adapter makes of it', async (t) => {
  const { content, scan } = await setUp(t);
  content.failure = new Error('upstream has gone');
  await assert.rejects(scan(), /upstream has gone/);
});

test('a scan ends with whoever asked for it, and all scans with the mirror', async (t) => {
  const { adapter, scanner, clock, scan } = await setUp(t, { concurrency: 1 });
  adapter.pending = 1_000;
  const abort = new AbortController();
  const one = assert.rejects(scan(abort.signal), /nobody wants it/);
  const two = assert.rejects(scan(), /the scanner is closed/);
  while (adapter.requests.at(-1) !== 'GET /api/v1/scan/ID/report') await setImmediate();
  assert.equal(adapter.scans.length, 1, 'one at a time');
  abort.abort(new Error('nobody wants it'));
  await one;
  await scanner[Symbol.asyncDispose]();
  await two;
  assert.equal(clock.isAwaited, false, 'no timer is left');
});

test('settings that this API cannot keep are refused', async (t) => {
  const adapter = await FakeAdapter.start(t);
  const context = {
    ...{ clock: new FakeClock(), logger: silent, route: await openRoute(t) },
    ...{ path: '', isSealed: () => false },
  };
  for (const [setting, reason] of [
    [{ secrets: true }, /no secrets/],
    [{ misconfigurations: true }, /no secrets/],
    [{ ifNothingFound: 'deny' }, /what it recognised/],
  ] as const) {
    const settings = scanSettings({ directory: '/nowhere', adapter: adapter.url, ...setting });
    await assert.rejects(openScanner(settings, context), reason);
  }
  const scanner = await openScanner(scanSettings({ directory: '/nowhere', adapter: adapter.url }), context);
  await scanner[Symbol.asyncDispose]();
});
