/** Scans by the real Trivy, with databases that the tests make. No network is used. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import type { Finding } from '../../src/policy/parts/part.ts';
import { openScanner } from '../../src/policy/parts/scan/open-scanner.ts';
import { ScanPart } from '../../src/policy/parts/scan/scan-part.ts';
import type { ScanSettings } from '../../src/policy/parts/scan/scanner/settings.ts';
import { alpineFiles, imageOf } from '../helpers/alpine-images.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { engine, missingEngines } from '../helpers/engines.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import type { TestImage } from '../helpers/images.ts';
import { freePort, startProcess, until } from '../helpers/real-processes.ts';
import { RememberedImages } from '../helpers/remembered-images.ts';
import { manifestOf, openRoute, scanSettings, silent, subjectOf, TestContent } from '../helpers/scans.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { ADVISORY, makeDatabase } from '../helpers/trivy-database.ts';

const skip = missingEngines('trivy');
const HOUR = 3_600_000;

async function setUp(t: TestContext, settings: Partial<ScanSettings> = {}, isSealed = true) {
  const directory = settings.directory ?? join(await tempDir(t), 'scanner');
  const cache = join(directory, 'cache');
  const all = scanSettings({
    directory,
    trivy: engine('trivy'),
    timeout: 120_000,
    rescan: HOUR,
    ...settings,
  });
  const scanner = await openScanner(all, {
    ...{ clock: systemClock, logger: silent, route: await openRoute(t), isSealed: () => isSealed },
    path: process.env['PATH'] ?? '',
  });
  cleanUp(t, () => scanner[Symbol.asyncDispose]());
  const clock = new FakeClock();
  const contents = new Map<string, TestContent>();
  const counts: string[] = [];
  const part = new ScanPart(all, {
    ...{ clock, logger: silent, scanner, clean: new RememberedImages(), count: (one) => counts.push(one) },
    contentOf: ({ digest }) => contents.get(digest) ?? new TestContent({ blobs: [] }),
  });
  const judge = async (image: TestImage, content = new TestContent(image)): Promise<Finding> => {
    contents.set(image.top.digest, content);
    return part.judge(subjectOf(image.top), { signal: new AbortController().signal });
  };
  /** The outcome that was counted, and the refusal, if it is one. */
  const judged = async (image: TestImage): Promise<string> => {
    counts.length = 0;
    const finding = await judge(image);
    return `${counts.join()}${finding.allowed ? '' : `: ${finding.reason}`}`;
  };
  return { directory, cache, clock, scanner, judge, judged };
}

test('an image with a vulnerable package is refused, and let in when the database has changed and rescan has passed', {
  skip,
}, async (t) => {
  const { cache, clock, judge, judged } = await setUp(t);
  const image = await imageOf({ layers: [alpineFiles()] });
  await makeDatabase(cache, ADVISORY);
  assert.equal(
    await judged(image),
    'found: its scan found CVE-2024-9999 (critical, openssl 3.3.0-r0, fixed in 3.3.1-r0)',
  );
  const fixed = await imageOf({ layers: [alpineFiles('3.3.1-r0')] });
  assert.equal(await judged(fixed), 'clean');
  await makeDatabase(cache);
  assert.equal((await judge(image)).allowed, false, 'a refusal holds');
  clock.advance(HOUR);
  assert.equal(await judged(image), 'clean');
});

test('without a database Trivy is unavailable, whatever else it could do', { skip }, async (t) => {
  const { judged } = await setUp(t, { ifUnavailable: 'allow' });
  assert.equal(await judged(await imageOf({ layers: [alpineFiles()] })), 'unavailable');
});

test('a database is fetched from the registry that the environment names, and not again while it is new', {
  skip,
}, async (t) => {
  const made = await tempDir(t);
  await makeDatabase(made, ADVISORY);
  const names = ['trivy.db', 'metadata.json'];
  const files = await Promise.all(
    names.map(async (name) => [name, await readFile(join(made, 'db', name))] as const),
  );
  const registry = await ScriptedUpstream.start(t);
  const { blobs } = await imageOf({ layers: [Object.fromEntries(files)] });
  const [config, layer] = blobs.map((bytes) => ({ digest: registry.addContent(bytes), size: bytes.length }));
  const manifest = manifestOf(OCI_MANIFEST, {
    config: { mediaType: 'application/vnd.aquasec.trivy.config.v1+json', ...config },
    layers: [
      {
        ...{ mediaType: 'application/vnd.aquasec.trivy.db.layer.v1.tar+gzip', ...layer },
        annotations: { 'org.opencontainers.image.title': 'db.tar.gz' },
      },
    ],
  });
  registry.addManifest('trivy-db', manifest.bytes, OCI_MANIFEST, '2');
  const { host } = new URL(registry.url);
  const environment = {
    TRIVY_DB_REPOSITORY: `${host}/trivy-db:2`,
    TRIVY_JAVA_DB_REPOSITORY: `${host}/trivy-java-db:1`, // there is none
  };
  const { judged, directory, scanner } = await setUp(t, { environment }, false);
  const image = await imageOf({ layers: [alpineFiles()] });
  assert.match(await judged(image), /^found: .*CVE-2024-9999/);
  const clean = await imageOf({ layers: [alpineFiles('3.3.1-r0')] });
  assert.equal(await judged(clean), 'clean');
  assert.equal(registry.count('blob', 'GET'), 1, 'once');
  assert.ok(
    registry.requests.every(({ headers }) => headers.authorization === undefined),
    'and without our token',
  );
  await scanner[Symbol.asyncDispose]();
  registry.requests.length = 0;
  const again = await setUp(t, { environment, directory }, false);
  assert.match(await again.judged(image), /^found: .*CVE-2024-9999/);
  await registry.waitFor(({ path }) => path.includes('trivy-java-db'));
  assert.equal(registry.count('blob'), 0);
});

test('severities, fixes and exceptions are judged by us, with the whole report', { skip }, async (t) => {
  const unfixed = { ...ADVISORY, ID: 'CVE-2024-1', Fixed: '' };
  const unrated = { ...ADVISORY, ID: 'CVE-2024-2', Severity: 'UNKNOWN' };
  const low = { ...ADVISORY, ID: 'CVE-2024-3', Severity: 'LOW' };
  const image = await imageOf({ layers: [alpineFiles()] });
  for (const [advisory, settings, expected] of [
    [unfixed, {}, /^found: .*CVE-2024-1/],
    [unfixed, { ignoreUnfixed: true }, /^clean$/],
    [unrated, {}, /^failed: .*the severity of CVE-2024-2 is not known/],
    [unrated, { except: [{ id: 'CVE-2024-2', until: Date.UTC(2027, 0, 1) }] }, /^clean$/],
    [low, {}, /^clean$/],
    [low, { failOn: 'low' }, /^found: .*CVE-2024-3/],
  ] as const) {
    const { cache, judged } = await setUp(t, settings);
    await makeDatabase(cache, advisory);
    assert.match(await judged(image), expected);
  }
});

test('two scans at the same time do not lock each other out', { skip }, async (t) => {
  const { cache, judge } = await setUp(t, { concurrency: 2 });
  await makeDatabase(cache, ADVISORY);
  const [slow, fast] = await Promise.all(
    ['slow', 'fast'].map((name) => imageOf({ layers: [alpineFiles('3.3.1-r0'), { 'etc/name': name }] })),
  );
  assert.ok(slow !== undefined && fast !== undefined);
  const gate = Promise.withResolvers<void>();
  const content = new TestContent(slow);
  content.gate = gate.promise;
  const opened = content.opened();
  const first = judge(slow, content);
  await opened;
  assert.equal((await judge(fast)).allowed, true);
  gate.resolve();
  assert.equal((await first).allowed, true);
});

test('an image of another architecture is scanned by its digest', { skip }, async (t) => {
  const { cache, judged } = await setUp(t);
  await makeDatabase(cache, ADVISORY);
  const image = await imageOf({ layers: [alpineFiles()], architecture: 's390x' });
  assert.match(await judged(image), /^found/);
});

test('an image in which Trivy recognises nothing is not clean', { skip }, async (t) => {
  const { cache, judged } = await setUp(t);
  await makeDatabase(cache, ADVISORY);
  assert.equal(await judged(await imageOf({ layers: [{ 'app/main': 'x' }] })), 'nothing');
});

test('an image on which Trivy fails is refused with ifUnavailable: allow', { skip }, async (t) => {
  const { cache, judged } = await setUp(t, { ifUnavailable: 'allow', ifNothingFound: 'allow' });
  await makeDatabase(cache, ADVISORY);
  // A layer that is no archive.
  const broken = await imageOf({
    layers: [alpineFiles(), Buffer.from('\u001f\u008b, and then something else')],
  });
  assert.match(await judged(broken), /^failed: its scan failed: it ended with exit code/);
  const incomplete = await imageOf({ layers: [alpineFiles()] });
  assert.match(await judged({ ...incomplete, blobs: incomplete.blobs.slice(0, 1) }), /^failed/);
});

test('a secret in a file or in the config fails if the policy says so', { skip }, async (t) => {
  const key = ['AKIA', 'IOSFODNN7', 'REALKEY'].join('');
  const files = { ...alpineFiles('3.3.1-r0'), 'root/credentials': `aws_access_key_id = ${key}\n` };
  const inFile = await imageOf({ layers: [files] });
  const inConfig = await imageOf({ layers: [alpineFiles('3.3.1-r0')], env: [`AWS_ACCESS_KEY_ID=${key}`] });
  const strict = await setUp(t, { secrets: true });
  await makeDatabase(strict.cache, ADVISORY);
  assert.match(await strict.judged(inFile), /^found: .*aws-access-key-id/);
  assert.match(await strict.judged(inConfig), /^found: .*aws-access-key-id/);
  const lax = await setUp(t);
  await makeDatabase(lax.cache, ADVISORY);
  assert.equal(await lax.judged(inFile), 'clean');
});

test('a jar without a database of jars is no clean image', { skip }, async (t) => {
  const { cache, judged } = await setUp(t);
  await makeDatabase(cache, ADVISORY);
  const image = await imageOf({ layers: [{ ...alpineFiles('3.3.1-r0'), 'app/main.jar': 'PK' }] });
  assert.match(await judged(image), /^failed/);
});

test("a server of Trivy's is asked by the program, which pulls the image", { skip }, async (t) => {
  const cache = join(await tempDir(t), 'server');
  await makeDatabase(cache, ADVISORY);
  const listen = `127.0.0.1:${await freePort()}`;
  const server = startProcess(t, engine('trivy'), [
    ...['server', '--listen', listen, '--cache-dir', cache, '--skip-db-update'],
  ]);
  await until("Trivy's server", server, async () => (await fetch(`http://${listen}/healthz`)).ok);
  const { judged } = await setUp(t, { trivyServer: `http://${listen}` });
  const image = await imageOf({ layers: [alpineFiles()] });
  assert.match(await judged(image), /^found: .*CVE-2024-9999/);
  await server.stop();
  const other = await imageOf({ layers: [alpineFiles('3.3.1-r0')] });
  assert.match(await judged(other), /^unavailable/);
});

test('a limit of memory that is large enough disturbs no scan, and with a small one Trivy is unavailable', {
  skip,
}, async (t) => {
  const image = await imageOf({ layers: [alpineFiles('3.3.1-r0')] });
  for (const [memoryBytes, expected] of [
    [8 * 1024 ** 3, /^clean$/],
    [64 * 1024 ** 2, /^unavailable/],
  ] as const) {
    const { cache, judged } = await setUp(t, { memoryBytes });
    await makeDatabase(cache, ADVISORY);
    assert.match(await judged(image), expected);
  }
});
