/** A changed configuration file: what it changes at once, and what it never breaks. */
import assert from 'node:assert/strict';
import { readFile, rename, stat, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { parse, stringify } from 'yaml';
import { noise } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const MINUTE = 60_000;
const BLOB = noise(512 * 1024, 'a layer');
const LATEST = '/v2/kept.test/a/b/manifests/latest';

interface Settings {
  upstreams: Record<string, Record<string, unknown>>;
  [key: string]: unknown;
}

async function setUp(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const other = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', 'latest', { seed: 'kept' });
  other.addImage('a/b', 'latest', { seed: 'gone' });
  const mirror = await startMirror(t, {
    upstreams: { 'kept.test': { url: upstream.url }, 'gone.test': { url: other.url } },
    ...options,
  });
  return { upstream, other, mirror };
}

function fileOf(mirror: TestMirror): string {
  return join(mirror.directory, 'millpond.yaml');
}

async function rewrite(mirror: TestMirror, change: (settings: Settings) => void): Promise<void> {
  const settings = parse(await readFile(fileOf(mirror), 'utf8')) as Settings;
  change(settings);
  await writeFile(`${fileOf(mirror)}.new`, stringify(settings));
  await rename(`${fileOf(mirror)}.new`, fileOf(mirror));
}

interface Reloaded {
  status: number;
  json: {
    error?: string;
    changes?: { key: string; from?: unknown; to?: unknown }[];
    waitsForRestart?: string[];
    problems?: { file: string; line: number; col: number; path: string; message: string }[];
  };
}

async function reload(mirror: TestMirror): Promise<Reloaded> {
  const reply = await request(`${mirror.operationsUrl}/api/reload`, { method: 'POST' });
  return { status: reply.statusCode, json: (await reply.body.json()) as Reloaded['json'] };
}

async function configurationIn(mirror: TestMirror): Promise<Record<string, unknown>> {
  const reply = await request(`${mirror.operationsUrl}/api/status`);
  return ((await reply.body.json()) as { configuration: Record<string, unknown> }).configuration;
}

function messages(mirror: TestMirror, text: string): Record<string, unknown>[] {
  return mirror.log.filter(({ msg }) => msg === text);
}

/** Lets one look at the file begin and end. */
async function lookOnce(mirror: TestMirror): Promise<void> {
  mirror.clock.advance(1_000);
  // A look is one `stat`. What it leads to is waited for by its line in the log.
  await stat(mirror.directory);
  await setImmediate();
}

async function lookUntilReloaded(mirror: TestMirror, times: number): Promise<void> {
  while (messages(mirror, 'configuration reloaded').length < times) await lookOnce(mirror);
}

test('a changed tagTtl counts from the next pull, and the answer names what has changed', async (t) => {
  const { mirror, upstream } = await setUp(t);
  await mirror.get(LATEST);
  await rewrite(mirror, ({ upstreams }) => {
    upstreams['kept.test'] = { ...upstreams['kept.test'], freshness: { tagTtl: '1m' } };
  });
  const { status, json } = await reload(mirror);
  assert.equal(status, 200);
  assert.deepEqual(json, {
    changes: [{ key: 'upstreams.kept.test.freshness.tagTtl', from: '5m', to: '1m' }],
    waitsForRestart: [],
  });
  const sent = upstream.requests.length;
  mirror.clock.advance(MINUTE);
  assert.equal((await mirror.get(LATEST)).headers['cache-status'], 'millpond; hit; detail=revalidated');
  assert.equal(upstream.requests.length, sent + 1);
});

test('pulls from an upstream that is removed finish, new ones get 404; a new upstream is pulled from', async (t) => {
  const { mirror, other } = await setUp(t);
  const digest = other.addContent(BLOB);
  const more = Promise.withResolvers<void>();
  other.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 64 * 1024, until: more.promise };
  });
  const running = await request(`${mirror.url}/v2/gone.test/a/b/blobs/${digest}`);
  assert.equal(running.statusCode, 200);
  await rewrite(mirror, (settings) => {
    settings.upstreams['new.test'] = settings.upstreams['gone.test'] ?? {};
    delete settings.upstreams['gone.test'];
  });
  assert.equal((await reload(mirror)).status, 200);
  assert.deepEqual((await mirror.get('/v2/gone.test/a/b/manifests/latest')).error, 'NAME_UNKNOWN');
  assert.equal((await mirror.get('/v2/new.test/a/b/manifests/latest')).status, 200);
  assert.equal(await mirror.metric('millpond_upstream_up', { upstream: 'gone.test' }), 0);
  more.resolve();
  assert.deepEqual(Buffer.from(await running.body.arrayBuffer()), BLOB);
});

test('the seal ends a pull from an upstream that was removed while it ran', async (t) => {
  const { mirror, other } = await setUp(t);
  const digest = other.addContent(BLOB);
  other.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 64 * 1024, until: new Promise(() => undefined) };
  });
  const running = await request(`${mirror.url}/v2/gone.test/a/b/blobs/${digest}`);
  await rewrite(mirror, ({ upstreams }) => delete upstreams['gone.test']);
  assert.equal((await reload(mirror)).status, 200);
  assert.equal((await request(`${mirror.operationsUrl}/api/seal`, { method: 'POST' })).statusCode, 200);
  await assert.rejects(running.body.arrayBuffer());
  while (other.openConnections.size > 0) await setImmediate();
});

test('a mirror that is sealed stays sealed towards an upstream that a reload adds', async (t) => {
  const { mirror, upstream } = await setUp(t, { sealed: true });
  await rewrite(mirror, ({ upstreams }) => {
    upstreams['new.test'] = upstreams['kept.test'] ?? {};
  });
  assert.equal((await reload(mirror)).status, 200);
  assert.equal((await mirror.get('/v2/new.test/a/b/manifests/latest')).status, 404);
  assert.equal(upstream.totalConnections, 0);
});

test('an upstream that has not changed keeps its connections and what it knows', async (t) => {
  const { mirror, upstream } = await setUp(t);
  upstream.addImage('a/b', '2', { seed: 'two' });
  await mirror.get(LATEST);
  await rewrite(mirror, ({ upstreams }) => delete upstreams['gone.test']);
  await reload(mirror);
  await mirror.get('/v2/kept.test/a/b/manifests/2');
  assert.equal(upstream.totalConnections, 1);
});

test('a file with mistakes changes nothing: each problem is told with its line, in answer, log, status and metric', async (t) => {
  const { mirror } = await setUp(t);
  await writeFile(fileOf(mirror), 'upstreams:\n  only.test: { tagTTL: 5m }\ncache:\n  maxSize: 50G\n');
  const { status, json } = await reload(mirror);
  assert.equal(status, 422);
  assert.deepEqual(
    json.problems?.map(({ line, path }) => [line, path]),
    [
      [1, 'upstreams'], // the default upstream is missing
      [2, 'upstreams.only.test.tagTTL'],
      [4, 'cache.maxSize'],
    ],
  );
  const told = messages(mirror, 'configuration not reloaded: the old one stays in use');
  assert.deepEqual(
    told.map(({ at }) => at),
    json.problems?.map(({ file, line, col }) => `${file}:${line}:${col}`),
  );
  assert.equal(await mirror.metric('millpond_config_last_reload_successful'), 0);
  const { lastReload } = (await configurationIn(mirror)) as { lastReload: { successful: boolean } };
  assert.equal(lastReload.successful, false);
  assert.equal((await mirror.get(LATEST)).status, 200);
  assert.equal((await mirror.get('/v2/only.test/a/b/manifests/latest')).error, 'NAME_UNKNOWN');
});

test('keys that need a restart are named in answer and status, until they are as they were', async (t) => {
  const { mirror } = await setUp(t);
  const original = await readFile(fileOf(mirror), 'utf8');
  await rewrite(mirror, (settings) => {
    settings['cache'] = { ...(settings['cache'] as object), maxSize: '20GiB' };
    settings['log'] = { level: 'warn' };
  });
  const { json } = await reload(mirror);
  assert.deepEqual(json.waitsForRestart, ['cache.maxSize']);
  assert.deepEqual(
    json.changes?.map(({ key }) => key),
    ['cache.maxSize', 'log.level'],
  );
  assert.deepEqual((await configurationIn(mirror))['waitsForRestart'], ['cache.maxSize']);
  await reload(mirror);
  assert.deepEqual((await configurationIn(mirror))['waitsForRestart'], ['cache.maxSize']);
  await writeFile(fileOf(mirror), original);
  await reload(mirror);
  assert.deepEqual((await configurationIn(mirror))['waitsForRestart'], []);
});

test('a bandwidth limit begins and ends with a reload', async (t) => {
  const { mirror, upstream } = await setUp(t);
  const seconds = async (seed: string, maxBandwidth: string) => {
    await rewrite(mirror, ({ upstreams }) => {
      upstreams['kept.test'] = { ...upstreams['kept.test'], maxBandwidth };
    });
    assert.deepEqual((await reload(mirror)).json.waitsForRestart, []);
    const digest = upstream.addContent(noise(64 * 1024, seed));
    const began = mirror.clock.now();
    assert.equal((await mirror.get(`/v2/kept.test/a/b/blobs/${digest}`)).status, 200);
    await mirror.idle();
    return (mirror.clock.now() - began) / 1000;
  };
  const limited = await seconds('limited', '1KiB');
  assert.ok(limited > 60 && limited < 68, `64 KiB took ${limited} s`);
  assert.ok((await seconds('free', 'none')) < 1);
});

test('the log level changes at once', async (t) => {
  const { mirror } = await setUp(t);
  await rewrite(mirror, (settings) => {
    settings['log'] = { level: 'error' };
  });
  await reload(mirror);
  const before = mirror.log.length;
  await mirror.get(LATEST);
  await reload(mirror);
  assert.equal(mirror.log.length, before);
});

test('pings that were answered are logged at debug only', async (t) => {
  const { mirror } = await setUp(t);
  const lines = () => mirror.log.filter(({ path }) => path === '/v2/').length;
  await mirror.get('/v2/');
  await mirror.get(LATEST);
  assert.equal(lines(), 0);
  await rewrite(mirror, (settings) => {
    settings['log'] = { level: 'debug' };
  });
  await reload(mirror);
  await mirror.get('/v2/');
  await mirror.get(LATEST);
  assert.equal(lines(), 1);
});

test('a warm list that is added is fetched at once', async (t) => {
  const { mirror, upstream } = await setUp(t);
  await rewrite(mirror, (settings) => {
    settings['warm'] = [{ images: ['kept.test/a/b:latest'], every: '1h' }];
  });
  await reload(mirror);
  while (messages(mirror, 'scheduled warming done').length === 0) await setImmediate();
  await upstream.close();
  assert.equal((await mirror.get(LATEST)).status, 200);
});

test('a file that is replaced is reloaded by itself, once, when it was quiet for a second', async (t) => {
  const { mirror } = await setUp(t);
  await rewrite(mirror, ({ upstreams }) => delete upstreams['gone.test']);
  await lookUntilReloaded(mirror, 1);
  assert.equal((await mirror.get('/v2/gone.test/a/b/manifests/latest')).error, 'NAME_UNKNOWN');
  for (let look = 0; look < 5; look += 1) await lookOnce(mirror);
  assert.equal(messages(mirror, 'configuration reloaded').length, 1);
});

test('a symlink that leads elsewhere, as Kubernetes changes a ConfigMap, is a change', async (t) => {
  const { mirror } = await setUp(t);
  const settings = parse(await readFile(fileOf(mirror), 'utf8')) as Settings;
  const link = async (name: string, content: Settings) => {
    const target = join(mirror.directory, name);
    await writeFile(target, stringify(content));
    await symlink(target, join(mirror.directory, 'link'));
    await rename(join(mirror.directory, 'link'), fileOf(mirror));
  };
  await link('..first', settings);
  await lookUntilReloaded(mirror, 1);
  delete settings.upstreams['gone.test'];
  await link('..second', settings);
  await lookUntilReloaded(mirror, 2);
  assert.equal((await mirror.get('/v2/gone.test/a/b/manifests/latest')).error, 'NAME_UNKNOWN');
  await unlink(fileOf(mirror));
  for (let look = 0; look < 3; look += 1) await lookOnce(mirror);
  assert.equal((await mirror.get(LATEST)).status, 200);
});
