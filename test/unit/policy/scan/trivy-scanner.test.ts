/** The child process that scans, with a program in Trivy's place that does whatever it wants. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type Clock, systemClock } from '../../../../src/clock.ts';
import type { Scanner } from '../../../../src/policy/parts/scan/scanner/scanner.ts';
import { cleanUp } from '../../../helpers/cleanup.ts';
import { fakeScanner } from '../../../helpers/fake-scanner.ts';
import { buildImage } from '../../../helpers/images.ts';
import { subjectOf, TestContent } from '../../../helpers/scans.ts';

const IMAGE = buildImage({ layers: [200_000, 1000] });
const SUBJECT = subjectOf(IMAGE.top);
const never = new AbortController().signal;
/** Enough for the fake to start and to pull. */
const SHORT = 4_000;

function scan(scanner: Scanner, content = new TestContent(IMAGE), signal = never) {
  return scanner.scan(SUBJECT, content, signal);
}

/** A process that nobody has reaped yet has ended, too. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function ended(pid: number | undefined): Promise<void> {
  assert.ok(pid !== undefined);
  while (isRunning(pid)) await setImmediate();
}

async function leftOver(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name !== 'cache');
}

test('an image is pulled from the route and its report is read, and nothing is left of the run', async (t) => {
  const results = [{ Vulnerabilities: [{ VulnerabilityID: 'CVE-1', PkgName: 'x', Severity: 'HIGH' }] }];
  const environment = { FAKE_RESULTS: JSON.stringify(results) };
  const { scanner, directory, noted } = await fakeScanner(t, { environment });
  const content = new TestContent(IMAGE);
  assert.deepEqual(await scan(scanner, content), {
    kind: 'report',
    report: {
      findings: [{ kind: 'vulnerability', id: 'CVE-1', severity: 'high', package: 'x' }],
      recognised: true,
    },
  });
  assert.ok((await noted()).some(({ pulled }) => pulled));
  assert.deepEqual(await leftOver(directory), []);
  assert.equal(content.open, 0);
});

test("the child's environment is PATH, HOME, TMPDIR, the route's credentials and what the settings name", async (t) => {
  const environment = {
    TRIVY_DB_REPOSITORY: 'db.example/trivy-db',
    HOME: '/root',
    DOCKER_CONFIG: '/root/.docker',
  };
  const { scanner, directory, noted } = await fakeScanner(t, { environment });
  await scan(scanner);
  const seen = (await noted()).find((entry) => entry.scan)?.scan;
  assert.ok(seen !== undefined);
  // The shell's own, and what Node hands to every child while coverage is measured.
  const { PWD: _pwd, OLDPWD: _old, SHLVL: _level, _: _shell, NODE_V8_COVERAGE: _coverage, ...env } = seen.env;
  assert.deepEqual(Object.keys(env).toSorted(), [
    ...['DOCKER_CONFIG', 'FAKE', 'FAKE_LOG', 'HOME', 'PATH', 'TMPDIR', 'TRIVY_DB_REPOSITORY'],
  ]);
  for (const name of ['HOME', 'TMPDIR', 'DOCKER_CONFIG'] as const)
    assert.ok(env[name]?.startsWith(join(directory, 'scan-')), name);
  assert.equal(seen.cwd, env['HOME'], 'a trivy.yaml or .trivyignore of somebody else is not read');
  const [reference = '', dashes] = seen.args.toReversed();
  assert.equal(dashes, '--');
  assert.match(reference, new RegExp(`^127\\.0\\.0\\.1:\\d+/quarantine@${SUBJECT.digest}$`));
  assert.ok(
    seen.args.every((arg) => !arg.includes('org/app')),
    'no name of an upstream',
  );
});

test('the token reaches the scanner by no argument and no variable, and is for the mirror only to read', async (t) => {
  const { scanner, directory, noted } = await fakeScanner(t, { fake: 'hang' });
  const abort = new AbortController();
  const running = scan(scanner, new TestContent(IMAGE), abort.signal);
  const handled = assert.rejects(running, /enough/);
  while (!(await noted()).some(({ pulled }) => pulled)) await setImmediate();
  const [folder = ''] = await leftOver(directory);
  assert.equal((await stat(join(directory, folder))).mode & 0o077, 0);
  const file = join(directory, folder, 'docker/config.json');
  assert.equal((await stat(file)).mode & 0o077, 0);
  const { auths } = JSON.parse(readFileSync(file, 'utf8')) as { auths: Record<string, { auth: string }> };
  const [{ auth } = { auth: '' }] = Object.values(auths);
  const [, token = ''] = Buffer.from(auth, 'base64').toString().split(':');
  assert.equal(token.length, 43);
  const seen = JSON.stringify(await noted());
  assert.ok(!seen.includes(token) && !seen.includes(auth));
  abort.abort(new Error('enough'));
  await handled;
});

test('sealed, nothing is fetched: neither databases nor what a scan would ask Maven for', async (t) => {
  const sealed = await fakeScanner(t, { isSealed: true });
  await scan(sealed.scanner);
  const notes = await sealed.noted();
  assert.ok(notes.every(({ update }) => update === undefined));
  const args = notes.find((entry) => entry.scan)?.scan?.args ?? [];
  for (const flag of ['--offline-scan', '--skip-db-update', '--skip-java-db-update', '--skip-check-update'])
    assert.ok(args.includes(flag), flag);
});

test('a scanner that hangs is killed at the timeout, even if it ignores SIGTERM or never asks for the image', async (t) => {
  const hung = ['hang', 'ignore SIGTERM', 'hang before pulling'].map(async (fake) => {
    const { scanner, directory, noted } = await fakeScanner(t, { fake, timeout: SHORT });
    assert.deepEqual(await scan(scanner), { kind: 'failed', reason: 'it took too long' }, fake);
    await ended((await noted())[0]?.scan?.pid);
    assert.deepEqual(await leftOver(directory), []);
  });
  await Promise.all(hung);
});

test('what a scanner leaves running ends with it, and keeps nobody waiting', async (t) => {
  const { scanner, noted } = await fakeScanner(t, { fake: 'grandchild' });
  assert.equal((await scan(scanner)).kind, 'report');
  await ended((await noted()).find(({ grandchild }) => grandchild)?.grandchild);
});

test('a report that never ends is not read to the end', async (t) => {
  const { scanner } = await fakeScanner(t, { fake: 'flood' });
  assert.deepEqual(await scan(scanner), { kind: 'failed', reason: 'the report is too long' });
});

test('a scanner that dies, crashes, lies or writes something else has failed', async (t) => {
  for (const [fake, reason] of [
    ['die', 'it ended with exit code 1'],
    ['crash', 'it was killed'],
    ['lie', 'the report is about another image'],
    ['garbage', 'the report is not JSON'],
  ] as const) {
    const { scanner } = await fakeScanner(t, { fake });
    assert.deepEqual(await scan(scanner), { kind: 'failed', reason }, fake);
  }
});

test('the last words of a scanner that died are in the log, and no more of them than 4 KiB', async (t) => {
  const { scanner, lines } = await fakeScanner(t, { fake: 'die' });
  await scan(scanner);
  const { stderr } = lines.find(({ msg }) => msg === 'the scanner failed') as { stderr: string };
  assert.match(stderr, /the last words\n$/);
  assert.equal(stderr.length, 4096);
});

test('a scan whose files take more than they may is killed, and has failed', async (t) => {
  const maxDirectoryBytes = 8 * 1024 * 1024; // of which each of two has 2 MiB, as half is for updates
  const { scanner, directory } = await fakeScanner(t, { fake: 'fill the disk', maxDirectoryBytes });
  assert.deepEqual(await scan(scanner), { kind: 'failed', reason: 'its files took more than they may' });
  assert.deepEqual(await leftOver(directory), []);
});

test('databases that leave no room make the scanner unavailable', async (t) => {
  const { scanner, directory } = await fakeScanner(t, { maxDirectoryBytes: 1024 * 1024 });
  await writeFile(join(directory, 'cache/large'), Buffer.alloc(2 * 1024 * 1024));
  const outcome = await scan(scanner);
  assert.equal(outcome.kind, 'unavailable');
});

test('a scanner that is not there, cannot be run, hangs at once or has no database is unavailable', async (t) => {
  // Half a second instead of the minute that it has to tell its version.
  const sleep: Clock['sleep'] = (ms, signal) => systemClock.sleep(ms === 60_000 ? 500 : ms, signal);
  const hung = await fakeScanner(t, { fake: 'hang at once', clock: { ...systemClock, sleep } });
  assert.equal(
    reasonOf(await scan(hung.scanner)),
    'unavailable: it does not tell its version: it took too long',
  );
  assert.deepEqual(await leftOver(hung.directory), []);
  const absent = await fakeScanner(t, { trivy: '/nowhere/trivy' });
  assert.match(reasonOf(await scan(absent.scanner)), /^unavailable: it cannot be started: .*ENOENT/);
  const forbidden = await fakeScanner(t);
  await chmod(forbidden.program, 0o644);
  assert.match(reasonOf(await scan(forbidden.scanner)), /^unavailable: it cannot be started: .*EACCES/);
  const empty = await fakeScanner(t, { environment: { FAKE_DATABASE: 'in its cache' } });
  assert.equal(reasonOf(await scan(empty.scanner)), 'unavailable: it has no database of vulnerabilities');
  assert.ok(
    (await empty.noted()).every((entry) => entry.scan === undefined),
    'the image was not near it',
  );
});

function reasonOf(outcome: { kind: string; reason?: string }): string {
  return `${outcome.kind}: ${outcome.reason}`;
}

test('a first database is awaited, and fetched once', async (t) => {
  const environment = { FAKE_DATABASE: 'in its cache', FAKE_UPDATE: 'works' };
  const { scanner, noted, directory } = await fakeScanner(t, { environment, isSealed: false });
  const outcomes = await Promise.all([scan(scanner), scan(scanner)]);
  assert.deepEqual(
    outcomes.map(({ kind }) => kind),
    ['report', 'report'],
  );
  const updates = (await noted()).filter(({ update }) => update !== undefined);
  assert.deepEqual(
    updates.map(({ update, known }) => [update, known]),
    [
      ['vulnerabilities', false],
      ['java', undefined],
    ],
  );
  assert.equal((await scan(scanner)).kind, 'report');
  assert.deepEqual(await leftOver(directory), []);
});

test('a newer database takes the place of the old one while nobody scans', async (t) => {
  const before = await fakeScanner(t);
  await before.scanner[Symbol.asyncDispose]();
  const { directory } = before;
  const database = join(directory, 'cache/db/trivy.db');
  await mkdir(join(directory, 'cache/db'));
  for (const name of ['trivy.db', 'metadata.json']) await writeFile(join(directory, 'cache/db', name), 'old');
  const environment = { FAKE_UPDATE: 'newer' };
  const { scanner, noted } = await fakeScanner(t, { directory, environment, isSealed: false });
  const gate = Promise.withResolvers<void>();
  const content = new TestContent(IMAGE);
  content.gate = gate.promise;
  const opened = content.opened();
  const scanning = scan(scanner, content);
  await opened;
  while (!(await noted()).some(({ update }) => update !== undefined)) await setImmediate();
  const [update] = (await noted()).filter((note) => note.update !== undefined);
  assert.equal(update?.known, true);
  await ended(update?.pid);
  for (let look = 0; look < 200; look += 1) assert.equal(await readFile(database, 'utf8'), 'old');
  gate.resolve();
  assert.equal((await scanning).kind, 'report');
  while ((await readFile(database, 'utf8').catch(() => '')) !== 'new') await setImmediate();
  await scanner[Symbol.asyncDispose]();
  assert.deepEqual(await leftOver(directory), []);
});

test('a database that Trivy finds new enough stays', async (t) => {
  const before = await fakeScanner(t);
  await before.scanner[Symbol.asyncDispose]();
  const { directory } = before;
  await mkdir(join(directory, 'cache/db'));
  for (const name of ['trivy.db', 'metadata.json']) await writeFile(join(directory, 'cache/db', name), 'old');
  const environment = { FAKE_DATABASE: 'in its cache', FAKE_UPDATE: 'works' };
  const { scanner, noted } = await fakeScanner(t, { directory, environment, isSealed: false });
  assert.equal((await scan(scanner)).kind, 'report');
  while (!(await noted()).some(({ update }) => update === 'java')) await setImmediate();
  assert.equal(await readFile(join(directory, 'cache/db/trivy.db'), 'utf8'), 'old');
});

test('a database that cannot be fetched is no failure while there is an old one', async (t) => {
  const { scanner, noted } = await fakeScanner(t, { isSealed: false });
  assert.equal((await scan(scanner)).kind, 'report');
  while (!(await noted()).some(({ update }) => update === 'vulnerabilities')) await setImmediate();
});

test('bytes that upstream does not give are an error of upstream, whatever the scanner makes of it', async (t) => {
  const { scanner } = await fakeScanner(t);
  const content = new TestContent(IMAGE);
  content.failure = new Error('upstream has gone');
  await assert.rejects(scan(scanner, content), /upstream has gone/);
  assert.equal(content.open, 0);
});

test('a scan ends with whoever asked for it, and all scans with the mirror', async (t) => {
  const { scanner, directory, noted } = await fakeScanner(t, { fake: 'hang' });
  const abort = new AbortController();
  const one = assert.rejects(scan(scanner, new TestContent(IMAGE), abort.signal), /nobody wants it/);
  const two = assert.rejects(scan(scanner), /the scanner is closed/);
  const waiting = assert.rejects(scan(scanner), /the scanner is closed/);
  while ((await noted()).filter(({ pulled }) => pulled).length < 2) await setImmediate();
  abort.abort(new Error('nobody wants it'));
  await one;
  await scanner[Symbol.asyncDispose]();
  await two;
  await waiting;
  for (const { scan: seen } of await noted()) if (seen !== undefined) await ended(seen.pid);
  assert.deepEqual(await leftOver(directory), []);
});

test('no more scans run at a time than the settings say', async (t) => {
  const { scanner, noted } = await fakeScanner(t, { concurrency: 1, fake: 'hang', timeout: SHORT });
  const first = scan(scanner);
  const abort = new AbortController();
  const second = assert.rejects(scan(scanner, new TestContent(IMAGE), abort.signal), /enough/);
  await first;
  assert.equal((await noted()).filter((entry) => entry.scan).length, 1);
  abort.abort(new Error('enough'));
  await second;
});

test('a child has no more memory than the settings say', async (t) => {
  const { scanner, program } = await fakeScanner(t, { memoryBytes: 512 * 1024 * 1024 });
  await writeFile(program, '#!/bin/sh\ntest "$1" = version || exec false\nulimit -v >&2\nexit 1\n');
  assert.match(reasonOf(await scan(scanner)), /^unavailable: .*524288/);
});

test('a limit of memory that the system cannot keep is refused at the start', async (t) => {
  const path = process.env['PATH'];
  cleanUp(t, () => {
    process.env['PATH'] = path;
  });
  process.env['PATH'] = '/nowhere';
  await assert.rejects(fakeScanner(t, { memoryBytes: 1 }), /scan\.memory needs the program prlimit/);
});

test('folders that an earlier process left are removed, and its databases stay', async (t) => {
  const { directory, scanner } = await fakeScanner(t);
  await scanner[Symbol.asyncDispose]();
  await mkdir(join(directory, 'scan-abcdef'));
  await writeFile(join(directory, 'cache/database'), 'x');
  const again = await fakeScanner(t, { directory });
  assert.deepEqual(await leftOver(directory), []);
  assert.deepEqual(await readdir(join(directory, 'cache')), ['database']);
  await again.scanner[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

test("with a server of Trivy's, its health is the server's", async (t) => {
  let reply: { status: number; body: string } = {
    status: 200,
    body: '{"Version":"0.74.0","VulnerabilityDB":{}}',
  };
  const server = createServer((request, response) => {
    assert.equal(request.url, '/version');
    response.writeHead(reply.status).end(reply.body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => server.close());
  const trivyServer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const environment = { FAKE_DATABASE: 'in its cache' };
  const { scanner, noted } = await fakeScanner(t, { trivyServer, environment });
  assert.equal((await scan(scanner)).kind, 'report');
  const args = (await noted())[0]?.scan?.args ?? [];
  assert.equal(args[args.indexOf('--server') + 1], trivyServer);
  reply = { status: 200, body: '{"Version":"0.74.0"}' };
  assert.equal(reasonOf(await scan(scanner)), 'unavailable: it has no database of vulnerabilities');
  reply = { status: 500, body: '' };
  assert.equal(reasonOf(await scan(scanner)), 'unavailable: its server answers /version with 500');
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  assert.match(reasonOf(await scan(scanner)), /^unavailable: its server cannot be reached/);
});
