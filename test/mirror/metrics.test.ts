/** What Prometheus is told, as far as it changes by itself or must be there before anything has happened. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { type Certificate, selfSigned } from '../helpers/certificates.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MIB = 1024 * 1024;
const HOUR = 3_600_000;

async function setUp(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, ...options });
  return { upstream, mirror };
}

async function linesOf({ operationsUrl }: TestMirror, name: string): Promise<string[]> {
  const text = await (await fetch(`${operationsUrl}/metrics`)).text();
  return text.split('\n').filter((line) => line.startsWith(name));
}

suite('the limit of an upstream', () => {
  const PREFIX = 'millpond_upstream_ratelimit_';

  test('is told with the end of its window, and no longer when that is over', async (t) => {
    const { upstream, mirror } = await setUp(t);
    upstream.addImage('library/alpine', '1');
    upstream.script({ kind: 'manifest' }, ({ headers }) => {
      headers['ratelimit-limit'] = '100;w=3600';
      headers['ratelimit-remaining'] = '7;w=3600';
    });
    assert.deepEqual(await linesOf(mirror, PREFIX), [], 'upstream has said nothing yet');
    await mirror.get('/v2/library/alpine/manifests/1');
    const end = (mirror.clock.now() + HOUR) / 1000;
    const told = [`limit{upstream="docker.io"} 100`, `remaining{upstream="docker.io"} 7`];
    told.push(`reset_timestamp_seconds{upstream="docker.io"} ${end}`);
    assert.deepEqual(
      await linesOf(mirror, PREFIX),
      told.map((line) => `${PREFIX}${line}`),
    );
    mirror.clock.advance(HOUR);
    assert.deepEqual(await linesOf(mirror, PREFIX), [], 'the window is over');
  });

  test('is not told while the mirror is sealed: nobody knows it then', async (t) => {
    const { upstream, mirror } = await setUp(t);
    upstream.addImage('library/alpine', '1');
    upstream.script({ kind: 'manifest' }, ({ headers }) => {
      headers['ratelimit-remaining'] = '7;w=3600';
    });
    await mirror.get('/v2/library/alpine/manifests/1');
    assert.equal(await mirror.metric(`${PREFIX}remaining`), 7);
    await fetch(`${mirror.operationsUrl}/api/seal`, { method: 'POST' });
    assert.deepEqual(await linesOf(mirror, PREFIX), []);
  });
});

test('what counts events begins at 0, so that the first event is seen as an increase', async (t) => {
  const { mirror } = await setUp(t, { sealed: true });
  const text = await (await fetch(`${mirror.operationsUrl}/metrics`)).text();
  for (const line of [
    'millpond_content_rejected_total{upstream="docker.io",reason="digest-mismatch"} 0',
    'millpond_ingest_resumes_total{upstream="docker.io"} 0',
    'millpond_upstream_credentials_refused_total{upstream="docker.io"} 0',
    'millpond_sealed_refusals_total{upstream="docker.io"} 0',
    'millpond_storage_errors_total{operation="write",code="ENOSPC"} 0',
    'millpond_evictions_total 0',
  ])
    assert.ok(text.includes(`${line}\n`), line);
});

test('a sealed mirror says so, and counts what it refuses for it, but not what it serves as it was', async (t) => {
  const { upstream, mirror } = await setUp(t);
  upstream.addImage('library/alpine', '1');
  await mirror.get('/v2/library/alpine/manifests/1');
  assert.equal((await mirror.get('/v2/library/alpine/manifests/none')).status, 404);
  assert.equal(await mirror.metric('millpond_sealed'), 0);
  await fetch(`${mirror.operationsUrl}/api/seal`, { method: 'POST' });
  mirror.clock.advance(24 * HOUR);
  assert.equal((await mirror.get('/v2/library/alpine/manifests/1')).status, 200);
  assert.equal((await mirror.get('/v2/library/alpine/manifests/2')).status, 404);
  assert.equal(await mirror.metric('millpond_sealed'), 1);
  assert.equal(await mirror.metric('millpond_sealed_refusals_total', { upstream: 'docker.io' }), 1);
});

test('content that is evicted is counted by how long nobody has used it', async (t) => {
  const cache = { maxSize: `${4 * MIB}B`, keepFree: '0B' };
  const { upstream, mirror } = await setUp(t, { cache });
  const pull = async (tag: string) => {
    const { blobs } = upstream.addImage('a/b', tag, { layers: [3 * MIB], seed: tag });
    await mirror.get(`/v2/a/b/manifests/${tag}`);
    for (const blob of blobs) await mirror.get(`/v2/a/b/blobs/${digestOf(blob)}`);
    await mirror.idle();
  };
  await pull('old');
  mirror.clock.advance(3 * HOUR);
  await pull('new');
  const evicted = await mirror.metric('millpond_evictions_total');
  const idle = (le: number) => mirror.metric('millpond_eviction_idle_seconds_bucket', { le: String(le) });
  assert.ok(evicted > 0);
  assert.deepEqual([await idle(3600), await idle(6 * 3600)], [0, evicted]);
});

suite('credentials that upstream does not accept are counted', () => {
  const credentials = { username: 'robot', password: { env: 'PASSWORD' } };
  const environment = { PASSWORD: 'a password that is wrong' };
  const refused = (mirror: TestMirror) => mirror.metric('millpond_upstream_credentials_refused_total');

  for (const [status, times] of [
    [401, 1],
    [403, 0], // is about the repository
  ] as const)
    test(`a token server that answers ${status}: ${times}`, async (t) => {
      const upstream = await ScriptedUpstream.start(t, { auth: {} });
      assert.ok(upstream.tokens);
      upstream.tokens.refusal = { status, body: '' };
      const upstreams = { 'docker.io': { url: upstream.url, credentials } };
      const mirror = await startMirror(t, { upstreams, environment });
      await mirror.get('/v2/library/alpine/manifests/1');
      assert.equal(await refused(mirror), times);
    });

  test('a registry that wants a password, and not ours', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const challenge = { 'www-authenticate': 'Basic realm="registry"' };
    upstream.script({}, (reply) => Object.assign(reply, errorReply(401, 'UNAUTHORIZED', challenge)));
    const upstreams = { 'docker.io': { url: upstream.url, credentials } };
    const mirror = await startMirror(t, { upstreams, environment });
    await mirror.get('/v2/library/alpine/manifests/1');
    const first = await refused(mirror);
    await mirror.get('/v2/library/alpine/manifests/1');
    assert.ok((await refused(mirror)) > first);
  });

  test('nobody logs in: a refusal is none of credentials', async (t) => {
    const upstream = await ScriptedUpstream.start(t, { auth: {} });
    assert.ok(upstream.tokens);
    upstream.tokens.refusal = { status: 401, body: '' };
    const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
    await mirror.get('/v2/library/alpine/manifests/1');
    assert.equal(await refused(mirror), 0);
  });
});

test('the disk: what is free, and what is to stay free', async (t) => {
  let isDead = false;
  const fileSystem = {
    ...nodeFileSystem,
    statfs: (async () => {
      if (isDead) throw Object.assign(new Error('dead'), { code: 'EIO' });
      return { bavail: 1000, bsize: 4096 };
    }) as never,
  };
  const { mirror } = await setUp(t, { fileSystem, cache: { keepFree: '1MiB', maxSize: '1MiB' } });
  assert.equal(await mirror.metric('millpond_disk_free_bytes'), 4_096_000);
  assert.equal(await mirror.metric('millpond_disk_keep_free_bytes'), MIB);
  isDead = true;
  assert.deepEqual(await linesOf(mirror, 'millpond_disk_free_bytes'), [], 'the disk does not say');
});

test('ready is what /readyz says', async (t) => {
  let isDead = false;
  const open: typeof nodeFileSystem.open = async (...args) => {
    if (isDead) throw Object.assign(new Error('dead'), { code: 'EROFS' });
    return nodeFileSystem.open(...args);
  };
  const { mirror } = await setUp(t, { fileSystem: { ...nodeFileSystem, open } });
  assert.equal(await mirror.metric('millpond_ready'), 1);
  isDead = true;
  assert.equal((await fetch(`${mirror.operationsUrl}/readyz`)).status, 503);
  assert.equal(await mirror.metric('millpond_ready'), 0);
});

test('the images of warm lists that failed the last time', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const { host } = new URL(upstream.url);
  upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, {
    upstreams: { [host]: upstream.url },
    warm: [{ images: [`${host}/a/b:1`, `${host}/a/b:2`], every: '1h' }],
  });
  const failed = () => mirror.metric('millpond_warm_failed_images');
  while ((await failed()) === 0);
  assert.equal(await failed(), 1);
  upstream.addImage('a/b', '2');
  mirror.clock.advance(HOUR);
  while ((await failed()) > 0);
});

test('the end of each certificate that the mirror shows, also after it was renewed', async (t) => {
  const directory = await tempDir(t);
  const tls = { certificate: join(directory, 'tls.crt'), key: join(directory, 'tls.key') };
  const use = async ({ cert, key }: Certificate) => {
    await writeFile(tls.key, key, { mode: 0o600 });
    await writeFile(tls.certificate, cert);
  };
  await use(selfSigned('localhost', 'localhost', '2100-01-01'));
  const { mirror } = await setUp(t, { operations: { tls } });
  const end = () =>
    mirror.metric('millpond_certificate_expiry_timestamp_seconds', { certificate: 'operations' });
  assert.equal(await end(), Date.parse('2100-01-01') / 1000);
  await use(selfSigned('localhost', 'localhost', '2110-01-01'));
  while ((await end()) !== Date.parse('2110-01-01') / 1000) mirror.clock.advance(1_000);
});

test('OpenMetrics on request, and else the text format', async (t) => {
  const { mirror } = await setUp(t);
  const ask = async (accept: string) => {
    const reply = await fetch(`${mirror.operationsUrl}/metrics`, { headers: { accept } });
    return { type: reply.headers.get('content-type') ?? '', text: await reply.text() };
  };
  const prometheus =
    'application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1';
  const open = await ask(prometheus);
  assert.match(open.type, /^application\/openmetrics-text; version=1\.0\.0/);
  assert.match(open.text, /\n# EOF\n$/);
  assert.match(open.text, /^# TYPE millpond_evictions counter$/m);
  for (const accept of ['*/*', 'text/plain', '']) {
    const plain = await ask(accept);
    assert.match(plain.type, /^text\/plain; version=0\.0\.4/);
    assert.match(plain.text, /^# TYPE millpond_evictions_total counter$/m);
  }
});
