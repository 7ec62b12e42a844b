/** A scanner at the door, as clients meet it. The scanner is a program that answers what a file says. */
import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { refused } from '../helpers/policies.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { pullImage } from '../helpers/transfers.ts';

const APP = '/v2/org/app';
const HOUR = 3_600_000;
const VULNERABLE = [
  {
    ...{ Target: 'app', Class: 'os-pkgs', Type: 'alpine' },
    Packages: [{ Name: 'openssl' }],
    Vulnerabilities: [
      {
        VulnerabilityID: 'CVE-2024-9999',
        PkgName: 'openssl',
        FixedVersion: '3.3.1-r0',
        Severity: 'CRITICAL',
      },
    ],
  },
];
const CLEAN = [{ Target: 'app', Class: 'os-pkgs', Type: 'alpine', Packages: [{ Name: 'openssl' }] }];

async function setUp(t: TestContext, scan: Record<string, unknown> = {}) {
  const directory = await tempDir(t);
  const [program, results, log] = ['trivy', 'results.json', 'scans.log'].map((name) => join(directory, name));
  assert.ok(program !== undefined && results !== undefined && log !== undefined);
  const source = resolve(import.meta.dirname, '../helpers/fake-trivy.ts');
  const script = `#!/bin/sh\nFAKE_RESULTS="$(cat '${results}')" exec '${process.execPath}' '${source}' "$@"\n`;
  await writeFile(program, script);
  await chmod(program, 0o755);
  await writeFile(log, '');
  const found = (what: unknown) => writeFile(results, JSON.stringify(what));
  await found(CLEAN);
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const policy = {
    name: 'no-criticals',
    scan: { trivy: program, failOn: 'critical', rescan: '24h', environment: ['FAKE_LOG', 'FAKE'], ...scan },
  };
  const start = (more: Partial<MirrorOptions> = {}) =>
    startMirror(t, {
      upstreams: { 'ghcr.io': { url: upstream.url } },
      ...{ directory, clock, policies: [policy], policyWait: '20s' },
      environment: { PATH: process.env['PATH'] ?? '', FAKE_LOG: log, FAKE: 'well' },
      ...more,
    });
  const scans = async () =>
    (await readFile(log, 'utf8')).split('\n').filter((line) => line.includes('"scan"')).length;
  return { directory, upstream, clock, policy, found, scans, start };
}

test('twenty clients of a new image wait for one scan, upstream sees one download, and what is clean comes in', async (t) => {
  const { upstream, scans, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [50_000, 20_000] });
  const mirror = await start();
  const replies = await Promise.all(Array.from({ length: 20 }, () => mirror.get(`${APP}/manifests/1`)));
  assert.deepEqual(
    replies.map(({ status }) => status),
    Array.from({ length: 20 }, () => 200),
  );
  await pullImage(mirror, 'org/app', '1');
  assert.equal(await scans(), 1);
  assert.equal(upstream.count('blob', 'GET'), image.blobs.length);
});

test('what the scanner finds is refused, with its layers, and comes in when it is gone and rescan has passed', async (t) => {
  const { upstream, clock, found, scans, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [50_000] });
  await found(VULNERABLE);
  const mirror = await start();
  const text = await refused(mirror, `${APP}/manifests/1`);
  assert.match(text, /no-criticals does not let this in: .*CVE-2024-9999/);
  for (const bytes of image.blobs) await refused(mirror, `${APP}/blobs/${digestOf(bytes)}`);
  await found(CLEAN);
  clock.advance(31_000);
  await refused(mirror, `${APP}/manifests/1`);
  assert.equal(await scans(), 1);
  clock.advance(24 * HOUR);
  await pullImage(mirror, 'org/app', '1');
  assert.equal(await scans(), 2);
});

test('a new finding turns an image that came in into a denied one at its rescan, or is only counted', async (t) => {
  for (const onNewFinding of ['deny', 'report']) {
    const { upstream, clock, found, start } = await setUp(t, { onNewFinding });
    upstream.addImage('org/app', '1');
    const mirror = await start();
    await pullImage(mirror, 'org/app', '1');
    await found(VULNERABLE);
    clock.advance(23 * HOUR);
    await pullImage(mirror, 'org/app', '1');
    clock.advance(2 * HOUR);
    if (onNewFinding === 'deny') await refused(mirror, `${APP}/manifests/1`);
    else await pullImage(mirror, 'org/app', '1');
    const result = onNewFinding === 'deny' ? 'found' : 'reported';
    assert.equal(await mirror.metric('millpond_policy_scans_total', { policy: 'no-criticals', result }), 1);
    await mirror.app.close();
  }
});

test('an index comes in as a list, and each platform is decided when it is asked for', async (t) => {
  const { upstream, found, scans, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'] });
  await found(VULNERABLE);
  const mirror = await start();
  assert.equal((await mirror.get(`${APP}/manifests/1`)).status, 200);
  assert.equal(await scans(), 0);
  const [amd64, arm64] = image.manifests;
  // Nor as a blob: that its index comes in says nothing about it.
  for (const route of ['blobs', 'manifests', 'blobs'])
    await refused(mirror, `${APP}/${route}/${amd64?.digest}`);
  await found(CLEAN);
  assert.equal((await mirror.get(`${APP}/manifests/${arm64?.digest}`)).status, 200);
});

test('a result holds over a restart', async (t) => {
  const { upstream, found, scans, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const first = await start();
  await pullImage(first, 'org/app', '1');
  await first.app.close();
  await found(VULNERABLE);
  const second = await start();
  await pullImage(second, 'org/app', '1');
  assert.equal(await scans(), 1);
});

test('a scan that takes longer than a client waits ends in 503, goes on, and the next client gets its result', async (t) => {
  const { upstream, clock, scans, start } = await setUp(t);
  const image = upstream.addImage('org/app', '1', { layers: [50_000] });
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.delay = gate.promise;
  });
  const mirror = await start();
  const waiting = mirror.get(`${APP}/manifests/1`);
  while (upstream.count('blob') === 0) await setImmediate();
  clock.advance(20_000);
  const reply = await waiting;
  assert.equal(reply.status, 503);
  assert.match(reply.body.toString(), /is being checked since .*: ask again/);
  gate.resolve();
  await pullImage(mirror, 'org/app', '1');
  assert.equal(await scans(), 1);
  assert.equal(upstream.count('blob', 'GET'), image.blobs.length);
});

test('to warm an image waits for its scan, however long a client would wait', async (t) => {
  const { upstream, clock, start } = await setUp(t);
  upstream.addImage('org/app', '1', { layers: [50_000] });
  const gate = Promise.withResolvers<void>();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.delay = gate.promise;
  });
  const mirror = await start();
  const body = JSON.stringify({ images: ['ghcr.io/org/app:1'] });
  const warming = request(`${mirror.operationsUrl}/api/warm`, { method: 'POST', body });
  while (upstream.count('blob') === 0) await setImmediate();
  clock.advance(25_000);
  gate.resolve();
  assert.match(await (await warming).body.text(), /"outcome":"done"/);
});

test('an image that makes the scanner crash is not let in by ifUnavailable: allow', async (t) => {
  const { upstream, policy, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const mirror = await start({
    policies: [{ ...policy, scan: { ...policy.scan, ifUnavailable: 'allow' } }],
    environment: { PATH: process.env['PATH'] ?? '', FAKE_LOG: '/dev/null', FAKE: 'crash' },
  });
  await refused(mirror, `${APP}/manifests/1`);
});

test('without a scanner ifUnavailable decides, for five minutes at most', async (t) => {
  const { directory, upstream, clock, policy, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const scan = { ...policy.scan, trivy: join(directory, 'nothing-here') };
  const closed = await start({ policies: [{ ...policy, scan }] });
  await refused(closed, `${APP}/manifests/1`);
  await closed.app.close();
  clock.advance(60_000);
  const open = await start({ policies: [{ ...policy, scan: { ...scan, ifUnavailable: 'allow' } }] });
  await pullImage(open, 'org/app', '1');
  const unavailable = () => open.metric('millpond_policy_scans_total', { result: 'unavailable' });
  assert.equal(await unavailable(), 1);
  clock.advance(300_000);
  await pullImage(open, 'org/app', '1');
  assert.equal(await unavailable(), 2);
});

test('a reload that changes nothing of the scanner keeps it', async (t) => {
  const { directory, upstream, scans, start } = await setUp(t);
  upstream.addImage('org/app', '1');
  const mirror = await start();
  await pullImage(mirror, 'org/app', '1');
  const config = join(directory, 'millpond.yaml');
  await writeFile(config, `${await readFile(config, 'utf8')}\nretryRefused: 20s\n`);
  await mirror.app.reload();
  assert.ok(mirror.log.some(({ msg }) => msg === 'configuration reloaded'));
  await pullImage(mirror, 'org/app', '1');
  upstream.addImage('org/app', '2', { seed: 'two' });
  await pullImage(mirror, 'org/app', '2');
  assert.equal(await scans(), 2);
});

test('a reload takes over what is decided about findings, and refuses to change the scanner that runs', async (t) => {
  const { directory, upstream, policy, found, scans, start } = await setUp(t, { ifNothingFound: 'allow' });
  upstream.addImage('org/app', '1');
  await found(JSON.parse(JSON.stringify(VULNERABLE).replace('CRITICAL', 'HIGH')));
  const mirror = await start();
  await pullImage(mirror, 'org/app', '1');
  const file = join(directory, 'millpond.yaml');
  const written = await readFile(file, 'utf8');
  const reload = async (from: string, to: string) => {
    assert.ok(written.includes(from), written);
    await writeFile(file, written.replace(from, to));
    await mirror.app.reload();
  };
  await reload('failOn: critical', 'failOn: high');
  assert.ok(mirror.log.some(({ msg }) => msg === 'configuration reloaded'));
  await refused(mirror, `${APP}/manifests/1`);
  assert.equal(await scans(), 2, 'another policy judges anew');
  await reload('rescan: 24h', 'rescan: 24h\n      concurrency: 3');
  const problems = mirror.log.filter(({ msg }) => String(msg).startsWith('configuration not reloaded'));
  assert.deepEqual(
    problems.map(({ problem }) => problem),
    [
      `policy ${policy.name}: the program, limits and addresses of its scanner cannot change while it runs: restart, or give the policy another name`,
    ],
  );
  await refused(mirror, `${APP}/manifests/1`);
  assert.equal(await scans(), 2);
});
