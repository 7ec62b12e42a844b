import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX } from '../../src/oci/manifest.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const HOUR = 3_600_000;

test('a cold manifest is upstream’s bytes with its type, length and digest; a warm one asks nobody', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest', { platforms: ['amd64', 'arm64'] });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const expected of ['millpond; fwd=uri-miss; stored', 'millpond; hit']) {
    const reply = await mirror.get('/v2/library/alpine/manifests/latest');
    assert.equal(reply.status, 200);
    assert.deepEqual(reply.body, image.top.bytes);
    assert.equal(reply.headers['content-type'], OCI_INDEX);
    assert.equal(reply.headers['content-length'], String(image.top.bytes.length));
    assert.equal(reply.headers['docker-content-digest'], image.top.digest);
    assert.equal(reply.headers['etag'], `"${image.top.digest}"`);
    assert.equal(reply.headers['docker-distribution-api-version'], 'registry/2.0');
    assert.equal(reply.headers['cache-status'], expected);
  }
  assert.equal(upstream.requests.length, 1);
});

test('all six ways in lead to one cache entry', async (t) => {
  const hub = await ScriptedUpstream.start(t);
  const quay = await ScriptedUpstream.start(t);
  hub.addImage('library/alpine', '3', { seed: 'hub' });
  quay.addImage('org/app', '1', { seed: 'quay' });
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': hub.url, 'quay.io': { url: quay.url, hosts: ['quay.mirror.corp'] } },
  });
  await mirror.get('/v2/alpine/manifests/3');
  for (const path of [
    '/v2/library/alpine/manifests/3',
    '/v2/docker.io/alpine/manifests/3',
    '/docker.io/v2/library/alpine/manifests/3',
    '/v2/library/alpine/manifests/3?ns=index.docker.io',
  ]) {
    assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit', path);
  }
  await mirror.get('/v2/quay.io/org/app/manifests/1');
  const ways: [string, Record<string, string>?][] = [
    ['/quay.io/v2/org/app/manifests/1'],
    ['/v2/org/app/manifests/1?ns=quay.io'],
    ['/v2/quay.io/org/app/manifests/1?ns=quay.io'],
    ['/v2/org/app/manifests/1', { host: 'quay.mirror.corp' }],
  ];
  for (const [path, headers] of ways) {
    assert.equal((await mirror.get(path, headers)).headers['cache-status'], 'millpond; hit', path);
  }
  assert.deepEqual([hub.requests.length, quay.requests.length], [1, 1]);
  assert.equal(quay.requests[0]?.query.get('ns'), null, 'ns is not passed on');
});

test('a request with ns is answered with OCI-Namespace', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', '1');
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  assert.equal((await mirror.get('/v2/org/app/manifests/1?ns=ghcr.io')).headers['oci-namespace'], 'ghcr.io');
  assert.equal((await mirror.get('/v2/org/app/manifests/1')).headers['oci-namespace'], undefined);
});

test('a cold blob comes with its length and digest, and is stored', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest', { layers: [300_000] });
  const layer = image.blobs[1] ?? Buffer.alloc(0);
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  await mirror.get('/v2/library/alpine/manifests/latest');
  for (const expected of ['millpond; fwd=uri-miss; stored', 'millpond; hit']) {
    const reply = await mirror.get(`/v2/library/alpine/blobs/${digestOf(layer)}`, {
      'accept-encoding': 'gzip, zstd',
    });
    assert.equal(reply.status, 200);
    assert.deepEqual(reply.body, layer);
    assert.equal(reply.headers['content-length'], '300000');
    assert.equal(reply.headers['content-type'], 'application/octet-stream');
    assert.equal(reply.headers['accept-ranges'], 'bytes');
    assert.equal(reply.headers['docker-content-digest'], digestOf(layer));
    assert.equal(reply.headers['x-content-type-options'], 'nosniff');
    assert.equal(reply.headers['transfer-encoding'], undefined);
    assert.equal(reply.headers['content-encoding'], undefined);
    assert.equal(reply.headers['cache-status'], expected);
  }
  assert.equal(upstream.count('blob'), 1);
  assert.equal(upstream.requests.at(-1)?.headers['accept-encoding'], 'identity');
});

test('the cold path takes sha512 digests, for manifests and blobs', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const blob = Buffer.from('sha512 blob');
  const digest = digestOf(blob, 'sha512');
  upstream.addSource(digest, { size: blob.length, slice: (start, end) => blob.subarray(start, end) });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (const outcome of ['millpond; fwd=uri-miss; stored', 'millpond; hit']) {
    const reply = await mirror.get(`/v2/a/b/blobs/${digest}`);
    assert.deepEqual(
      [reply.status, reply.body.toString(), reply.headers['cache-status']],
      [200, 'sha512 blob', outcome],
    );
  }
});

test('an empty blob is a blob', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.alloc(0));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (let pull = 0; pull < 2; pull += 1) {
    const reply = await mirror.get(`/v2/a/b/blobs/${digest}`);
    assert.deepEqual([reply.status, reply.headers['content-length']], [200, '0']);
  }
  assert.equal(upstream.count('blob', 'GET'), 1);
});

test('HEAD of a cold manifest costs one HEAD, then none within the TTL; the GET by digest that follows is the only GET', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const cold = await mirror.head('/v2/library/alpine/manifests/latest');
  assert.equal(cold.headers['cache-status'], 'millpond; fwd=uri-miss');
  assert.equal(cold.headers['docker-content-digest'], image.top.digest);
  assert.equal(cold.headers['content-length'], String(image.top.bytes.length));
  assert.equal(cold.headers['content-type'], image.top.mediaType);
  assert.equal(cold.body.length, 0);
  const warm = await mirror.head('/v2/library/alpine/manifests/latest');
  assert.equal(warm.headers['cache-status'], 'millpond; hit');
  await mirror.get(`/v2/library/alpine/manifests/${image.top.digest}`);
  const byTag = await mirror.get('/v2/library/alpine/manifests/latest');
  assert.equal(byTag.headers['cache-status'], 'millpond; hit');
  assert.deepEqual([upstream.count('manifest', 'HEAD'), upstream.count('manifest', 'GET')], [1, 1]);
});

test('HEAD of a cold blob moves no body', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.alloc(1_000_000, 7));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const reply = await mirror.head(`/v2/a/b/blobs/${digest}`);
  assert.deepEqual([reply.status, reply.headers['content-length'], reply.body.length], [200, '1000000', 0]);
  assert.deepEqual([upstream.count('blob', 'HEAD'), upstream.count('blob', 'GET')], [1, 0]);
});

test('a registry that refuses HEAD of blobs is asked by a GET of one byte', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.alloc(1_000_000, 7));
  upstream.script({ kind: 'blob', method: 'HEAD' }, (reply) => {
    reply.status = 401;
  });
  const mirror = await startMirror(t, { upstreams: { 'public.ecr.aws': upstream.url } });
  const reply = await mirror.head(`/v2/a/b/blobs/${digest}`);
  assert.deepEqual([reply.status, reply.headers['content-length']], [200, '1000000']);
  assert.equal(upstream.requests.at(-1)?.headers.range, 'bytes=0-0');
});

test('If-None-Match is answered with 304 and no body', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const config = image.blobs[0] ?? Buffer.alloc(0);
  await mirror.get('/v2/library/alpine/manifests/latest');
  await mirror.get(`/v2/library/alpine/blobs/${digestOf(config)}`);
  for (const [path, digest] of [
    ['/v2/library/alpine/manifests/latest', image.top.digest],
    [`/v2/library/alpine/blobs/${digestOf(config)}`, digestOf(config)],
  ] as const) {
    const reply = await mirror.get(path, { 'if-none-match': `"${digest}"` });
    assert.deepEqual([reply.status, reply.body.length], [304, 0], path);
    assert.equal((await mirror.get(path, { 'if-none-match': '"other"' })).status, 200);
  }
});

test('tags are listed page by page through the mirror, whatever upstream puts into Link', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  for (const tag of ['a', 'b', 'c']) upstream.addImage('org/app', tag, { seed: tag });
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  const first = await mirror.get('/quay.io/v2/org/app/tags/list?n=2&ns=quay.io');
  assert.deepEqual(JSON.parse(first.body.toString()), { name: 'org/app', tags: ['a', 'b'] });
  const link = /^<([^>]+)>; rel="next"$/.exec(String(first.headers['link']))?.[1] ?? '';
  assert.ok(link.startsWith('/quay.io/v2/org/app/tags/list?'), link);
  const second = await mirror.get(link);
  assert.deepEqual(JSON.parse(second.body.toString()), { name: 'org/app', tags: ['c'] });
  assert.equal(second.headers['link'], undefined);
  assert.equal(second.headers['oci-namespace'], 'quay.io');
  const none = await mirror.get('/v2/org/app/tags/list?n=0');
  assert.deepEqual([JSON.parse(none.body.toString()).tags, none.headers['link']], [[], undefined]);
});

test('what upstream puts into Link for the next page goes back to it, though it means nothing to the mirror', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/app', '1');
  const pages = [0, 1, 2].map((page) =>
    Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [], page })),
  );
  upstream.addReferrers(image.top.digest, ...pages);
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  const bodies: Buffer[] = [];
  for (
    let path: string | undefined = `/v2/org/app/referrers/${image.top.digest}?ns=quay.io`;
    path !== undefined;
  ) {
    const reply: Awaited<ReturnType<typeof mirror.get>> = await mirror.get(path);
    bodies.push(reply.body);
    path = /^<([^>]+)>; rel="next"$/.exec(String(reply.headers['link']))?.[1];
  }
  assert.deepEqual(bodies, pages);
  assert.equal(upstream.count('referrers'), 3);

  upstream.script({ kind: 'tags' }, (reply) => {
    reply.headers['link'] = '</v2/org/app/tags/list?n=1&next_page=a%2Bb%3D%3D>; rel="next"';
  });
  const first = await mirror.get('/v2/org/app/tags/list?n=1&ns=quay.io');
  const link = String(first.headers['link']);
  await mirror.get(link.slice(1, link.indexOf('>')));
  const [, second] = upstream.requests.filter(({ kind }) => kind === 'tags').map(({ query }) => query);
  assert.deepEqual(
    [...(second ?? [])],
    [
      ['n', '1'],
      ['next_page', 'a+b=='],
    ],
  );
});

test('referrers are passed on as upstream sent them, and remembered for as long as a tag', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/app', '1');
  const index = Buffer.from(
    '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]} ',
  );
  upstream.addReferrers(image.top.digest, index);
  upstream.script({ kind: 'referrers' }, (reply, request) => {
    if (request.query.has('artifactType')) reply.headers['oci-filters-applied'] = 'artifactType';
  });
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const path = `/v2/org/app/referrers/${image.top.digest}`;
  const reply = await mirror.get(path);
  assert.deepEqual([reply.status, reply.headers['content-type'], reply.body], [200, OCI_INDEX, index]);
  assert.equal(reply.headers['oci-filters-applied'], undefined);
  const filtered = await mirror.get(`${path}?artifactType=application/x`);
  assert.equal(filtered.headers['oci-filters-applied'], 'artifactType');
  assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit');
  assert.equal(upstream.count('referrers'), 2);
  mirror.clock.advance(HOUR);
  await upstream.close();
  assert.equal((await mirror.get(path)).headers['cache-status'], 'millpond; hit; detail=stale');
});

test('an upstream without referrers API is a 404 that clients take for just that', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('org/app', '1');
  const mirror = await startMirror(t, { upstreams: { 'ghcr.io': upstream.url } });
  const path = `/v2/org/app/referrers/${image.top.digest}`;
  const reply = await mirror.get(path);
  assert.deepEqual([reply.status, reply.error], [404, 'UNSUPPORTED']);
  upstream.script({ kind: 'referrers' }, (html) => {
    html.status = 200;
    html.headers['content-type'] = 'text/html';
  });
  mirror.clock.advance(HOUR);
  assert.equal((await mirror.get(path)).error, 'UNSUPPORTED');
});

test('tags and digests survive a restart without a question to upstream', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const image = upstream.addImage('library/alpine', 'latest', { layers: [50_000] });
  const paths = [
    '/v2/library/alpine/manifests/latest',
    `/v2/library/alpine/manifests/${image.top.digest}`,
    ...image.blobs.map((blob) => `/v2/library/alpine/blobs/${digestOf(blob)}`),
  ];
  const options = { upstreams: { 'docker.io': upstream.url } };
  const first = await startMirror(t, options);
  for (const path of paths) await first.get(path);
  const asked = upstream.requests.length;
  await first.app.close();
  await upstream.close();
  const second = await startMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    directory: first.directory,
    clock: first.clock,
  });
  for (const path of paths)
    assert.equal((await second.get(path)).headers['cache-status'], 'millpond; hit', path);
  assert.equal(asked, 3 + 0);
  assert.equal(await second.metric('millpond_store_objects'), 3);
});

test('the metrics tell hits from misses and what each cost', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(Buffer.alloc(5000, 1));
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  for (let pull = 0; pull < 3; pull += 1) await mirror.get(`/v2/a/b/blobs/${digest}`);
  await mirror.get('/v2/');
  await mirror.idle();
  const labels = { upstream: 'docker.io', kind: 'blob' };
  assert.equal(await mirror.metric('millpond_requests_total', { ...labels, cache: 'miss' }), 1);
  assert.equal(await mirror.metric('millpond_requests_total', { ...labels, cache: 'hit' }), 2);
  assert.equal(await mirror.metric('millpond_requests_total'), 3, 'a ping is no traffic of the cache');
  assert.equal(await mirror.metric('millpond_response_bytes_total'), 15_000);
  assert.equal(await mirror.metric('millpond_upstream_bytes_total', labels), 5000);
  assert.equal(await mirror.metric('millpond_upstream_requests_total', { ...labels, code: '200' }), 1);
  assert.equal(await mirror.metric('millpond_store_bytes'), 8192, 'in whole blocks of the disk');
  assert.equal(await mirror.metric('millpond_ingests_in_progress'), 0);
  assert.equal(await mirror.metric('millpond_ingest_followers'), 0);
});
