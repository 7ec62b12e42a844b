import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRequest, RequestParser, type RoutingTable } from '../../../src/http/registry/routes.ts';
import { RegistryError } from '../../../src/oci/errors.ts';

const SHA = `sha256:${'a'.repeat(64)}`;

const table: RoutingTable = {
  defaultUpstream: 'docker.io',
  upstreamByHost: new Map([
    ['docker.io', 'docker.io'],
    ['index.docker.io', 'docker.io'],
    ['registry-1.docker.io', 'docker.io'],
    ['quay.io', 'quay.io'],
    ['ghcr.io', 'ghcr.io'],
    ['registry.corp.example:8443', 'registry.corp.example:8443'],
  ]),
  upstreamByVirtualHost: new Map([['ghcr.mirror.corp', 'ghcr.io']]),
};

function where(url: string, host = 'mirror:5000'): string {
  const request = parseRequest(url, host, table);
  return request.kind === 'ping' ? 'ping' : `${request.upstream} ${request.repository}`;
}

function refusal(url: string, host = 'mirror:5000'): string {
  try {
    parseRequest(url, host, table);
  } catch (error) {
    assert.ok(error instanceof RegistryError);
    return `${error.status} ${error.code}`;
  }
  return 'none';
}

for (const [way, url] of [
  ['bare', '/v2/library/alpine/manifests/3.20'],
  ['bare, without library/', '/v2/alpine/manifests/3.20'],
  ['ns', '/v2/library/alpine/manifests/3.20?ns=docker.io'],
  ['ns alias index.docker.io', '/v2/alpine/manifests/3.20?ns=index.docker.io'],
  ['ns alias registry-1.docker.io', '/v2/alpine/manifests/3.20?ns=registry-1.docker.io'],
  ['first path segment', '/v2/docker.io/library/alpine/manifests/3.20'],
  ['first path segment, without library/', '/v2/docker.io/alpine/manifests/3.20'],
  ['path before /v2', '/docker.io/v2/library/alpine/manifests/3.20'],
  ['path before /v2 and ns', '/docker.io/v2/library/alpine/manifests/3.20?ns=docker.io'],
  ['both at once', '/v2/docker.io/library/alpine/manifests/3.20?ns=docker.io'],
  ['alias and name at once', '/v2/index.docker.io/library/alpine/manifests/3.20?ns=docker.io'],
] as const) {
  test(`the ${way} way leads to the same repository`, () => {
    assert.equal(where(url), 'docker.io library/alpine');
  });
}

test('a virtual host means its upstream, whatever the case of the Host header', () => {
  assert.equal(where('/v2/org/app/manifests/1', 'GHCR.mirror.corp'), 'ghcr.io org/app');
});

test('a registry with a port can be named in every way', () => {
  assert.equal(where('/v2/registry.corp.example:8443/a/b/tags/list'), 'registry.corp.example:8443 a/b');
  assert.equal(where('/v2/a/b/tags/list?ns=registry.corp.example:8443'), 'registry.corp.example:8443 a/b');
});

test('only Docker Hub gains library/', () => {
  assert.equal(where('/v2/quay.io/app/manifests/1'), 'quay.io app');
  assert.equal(where('/v2/org/app/manifests/1'), 'docker.io org/app');
});

test('the host segment is stripped once, not twice', () => {
  assert.equal(where('/v2/quay.io/quay.io/app/manifests/1?ns=quay.io'), 'quay.io quay.io/app');
});

for (const [name, url] of [
  ['a/blobs/b', '/v2/a/blobs/b/manifests/x'],
  ['a/manifests/m', '/v2/a/manifests/m/manifests/x'],
  ['x/tags/list', '/v2/x/tags/list/manifests/x'],
  ['x/referrers/y', `/v2/x/referrers/y/blobs/${SHA}`],
  ['a/manifests/x', '/v2/a/manifests/x/tags/list'],
] as const) {
  test(`the repository ${name} is parsed from the right`, () =>
    assert.equal(where(url), `docker.io ${name}`));
}

test('every kind of request is recognised', () => {
  const kinds = [
    '/v2/a/b/manifests/t',
    `/v2/a/b/manifests/${SHA}`,
    `/v2/a/b/blobs/${SHA}`,
    '/v2/a/b/tags/list',
    `/v2/a/b/referrers/${SHA}`,
    '/v2/a/b/blobs/uploads/',
    '/v2/a/b/blobs/uploads/5f0a',
  ].map((url) => parseRequest(url, undefined, table).kind);
  assert.deepEqual(kinds, ['manifest', 'manifest', 'blob', 'tags', 'referrers', 'upload', 'upload']);
});

test('an encoded colon in a digest is read as one', () => {
  assert.equal(where(`/v2/a/b/blobs/sha256%3A${'a'.repeat(64)}`), 'docker.io a/b');
});

test('/v2, /v2/ and /<upstream>/v2/ are pings', () => {
  for (const url of ['/v2', '/v2/', '/v2/?ns=docker.io', '/quay.io/v2/']) assert.equal(where(url), 'ping');
});

test('lists take whatever page they are asked for, without ns', () => {
  const target = { upstream: 'quay.io', repository: 'a/b', namespace: 'quay.io' };
  assert.deepEqual(parseRequest('/v2/a/b/tags/list?n=5&ns=quay.io&last=v1&x=a%2fb', undefined, table), {
    ...target,
    kind: 'tags',
    query: 'n=5&last=v1&x=a%2Fb',
  });
  assert.deepEqual(parseRequest(`/v2/a/b/referrers/${SHA}?artifactType=t&ns=quay.io`, undefined, table), {
    ...target,
    kind: 'referrers',
    digest: SHA,
    query: 'artifactType=t',
  });
});

for (const [url, expected, host] of [
  // the world is closed
  ['/v2/a/b/manifests/t?ns=evil.example', '404 NAME_UNKNOWN'],
  ['/v2/evil.example/a/b/manifests/t', '404 NAME_UNKNOWN'],
  ['/v2/localhost/a/manifests/t', '404 NAME_UNKNOWN'],
  ['/v2/10.0.0.1:5000/a/manifests/t', '404 NAME_UNKNOWN'],
  ['/evil.example/v2/a/b/manifests/t', '404 NAME_UNKNOWN'],
  ['/pfx/v2/a/b/manifests/t', '404 NAME_UNKNOWN'],
  ['/evil.example/v2/', '404 NAME_UNKNOWN'],
  ['/v2/a/b/manifests/t?ns=', '404 NAME_UNKNOWN'],
  ['/v2/evil.example/a/blobs/uploads/', '404 NAME_UNKNOWN'],
  // the grammar comes first
  ['/v2/UPPER/manifests/t?ns=evil.example', '400 NAME_INVALID'],
  ['/v2/a/manifests/.t?ns=evil.example', '400 TAG_INVALID'],
  ['/evil.example/v2/a/blobs/latest', '400 DIGEST_INVALID'],
  ['/v2/UPPER/blobs/uploads/', '400 NAME_INVALID'],
  // disagreement
  ['/v2/quay.io/a/b/manifests/t?ns=ghcr.io', '400 NAME_INVALID'],
  ['/quay.io/v2/a/b/manifests/t?ns=ghcr.io', '400 NAME_INVALID'],
  ['/v2/a/b/manifests/t?ns=ghcr.io&ns=quay.io', '400 NAME_INVALID'],
  ['/v2/a/b/manifests/t?ns=quay.io', '400 NAME_INVALID', 'ghcr.mirror.corp'],
  // names
  ['/v2/../../etc/passwd/manifests/t', '400 NAME_INVALID'],
  ['/v2/a/%2e%2e/b/manifests/t', '400 NAME_INVALID'],
  ['/v2/a%2Fb/manifests/t', '400 NAME_INVALID'],
  ['/v2/a%00b/manifests/t', '400 NAME_INVALID'],
  ['/v2/a%ff/manifests/t', '400 NAME_INVALID'],
  ['/v2/a//b/manifests/t', '400 NAME_INVALID'],
  [`/v2/${'a'.repeat(250)}/manifests/t`, '400 NAME_INVALID'], // with library/ it is too long
  ['/v2/a\\b/manifests/t', '400 NAME_INVALID'],
  ['/v2/Alpine/manifests/t', '400 NAME_INVALID'],
  ['/v2/_x/manifests/t', '400 NAME_INVALID'],
  [`/v2/${'a'.repeat(300)}/manifests/t`, '400 NAME_INVALID'],
  // references
  [`/v2/a/manifests/${'t'.repeat(129)}`, '400 TAG_INVALID'],
  ['/v2/a/manifests/.t', '400 TAG_INVALID'],
  ['/v2/a/manifests/-t', '400 TAG_INVALID'],
  ['/v2/a/manifests/', '400 TAG_INVALID'],
  ['/v2/a/manifests/t%0d%0aX', '400 TAG_INVALID'],
  ['/v2/a/manifests/sha256:baddigeststring', '400 DIGEST_INVALID'],
  [`/v2/a/manifests/SHA256:${'a'.repeat(64)}`, '400 DIGEST_INVALID'],
  ['/v2/a/blobs/latest', '400 DIGEST_INVALID'],
  ['/v2/a/referrers/latest', '400 DIGEST_INVALID'],
  ['/v2/a/tags/list?n=-1', '400 PAGINATION_NUMBER_INVALID'],
  ['/v2/a/tags/list?n=x', '400 PAGINATION_NUMBER_INVALID'],
  // no routes
  ['/v2/_catalog', '404 UNSUPPORTED'],
  ['/v2/_oci/ext/discover', '404 UNSUPPORTED'],
  ['/v2/manifests/t', '404 UNSUPPORTED'],
  ['/', '404 UNSUPPORTED'],
  ['/v1/a/b/manifests/t', '404 UNSUPPORTED'],
  ['http://evil.example/v2/a/manifests/t', '404 UNSUPPORTED'],
] as const) {
  test(`${url.slice(0, 60)} is refused with ${expected}`, () => assert.equal(refusal(url, host), expected));
}

test('a refusal cannot forge a log line', () => {
  assert.throws(
    () => parseRequest('/v2/a%0A%7B%22forged%22%3A1%7D/manifests/t', undefined, table),
    (error: Error) => !error.message.includes('\n'),
  );
});

test('a request that is remembered is not taken for one with another path, query or host', () => {
  const parser = new RequestParser(table);
  const ask = (url: string, host?: string) => {
    const request = parser.parse(url, host);
    return request.kind === 'ping' ? 'ping' : `${request.kind} ${request.upstream} ${request.repository}`;
  };
  for (const _time of ['first', 'second']) {
    assert.equal(ask('/v2/org/app/manifests/1'), 'manifest docker.io org/app');
    assert.equal(ask('/v2/org/app/manifests/1', 'mirror:5000'), 'manifest docker.io org/app');
    assert.equal(ask('/v2/org/app/manifests/1', 'ghcr.mirror.corp'), 'manifest ghcr.io org/app');
    assert.equal(ask('/v2/org/app/manifests/1?ns=quay.io'), 'manifest quay.io org/app');
    assert.equal(ask(`/v2/org/app/blobs/${SHA}`), `blob docker.io org/app`);
    assert.equal(ask('/v2/'), 'ping');
    assert.throws(() => ask('/v2/org/app/manifests/1?ns=evil.example'), RegistryError);
  }
});

test('the parser remembers a limited number of requests, and no long ones', () => {
  const parser = new RequestParser(table);
  const kept = parser.parse('/v2/a/manifests/0', undefined);
  assert.equal(parser.parse('/v2/a/manifests/0', undefined), kept);
  for (let n = 1; n <= 5000; n += 1) parser.parse(`/v2/a/manifests/${n}`, undefined);
  assert.notEqual(parser.parse('/v2/a/manifests/0', undefined), kept);
  const long = `/v2/a/manifests/1?x=${'y'.repeat(1000)}`;
  assert.notEqual(parser.parse(long, undefined), parser.parse(long, undefined));
});
