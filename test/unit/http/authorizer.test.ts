import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Authorizer } from '../../../src/http/registry/authorizer.ts';
import type { ListenerOptions } from '../../../src/http/server/listener.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { ANONYMOUS, type Identity } from '../../../src/request-context.ts';
import { CERTIFICATE, SHA, startRegistrySide } from '../../helpers/registry-side.ts';

const OPERATOR: Identity = { kind: 'operator' };

/** Every request that a pull can make. */
const PULLS = (repository: string) =>
  (
    [
      ['GET', 'manifests/1', {}],
      ['HEAD', 'manifests/1', {}],
      ['GET', `manifests/${SHA}`, { 'if-none-match': `"${SHA}"` }],
      ['GET', `blobs/${SHA}`, {}],
      ['HEAD', `blobs/${SHA}`, {}],
      ['GET', `blobs/${SHA}`, { range: 'bytes=2-3' }],
      ['GET', 'tags/list', {}],
      ['GET', 'tags/list?n=0', {}],
      ['GET', `referrers/${SHA}`, {}],
    ] as const
  ).map(([method, route, headers]) => ({ method, path: `/v2/${repository}/${route}`, headers }));

/** Lets everybody pull, except what is called private. */
const refusesPrivate: Authorizer = {
  authorize: async (request) => {
    if (request.kind === 'ping' || request.repository !== 'org/private')
      return { identity: OPERATOR, cachedOnly: false };
    throw new RegistryError('UNAUTHORIZED', { headers: { 'WWW-Authenticate': 'Basic realm="mirror"' } });
  },
};

for (const [scheme, options] of [
  ['http', {}],
  ['https', { tls: CERTIFICATE }],
] as [string, ListenerOptions][]) {
  test(`${scheme}: a refused pull is 401 before cache and upstream are asked, whatever it asks for`, async (t) => {
    const registry = await startRegistrySide(t, { authorizer: refusesPrivate }, options);
    for (const { method, path, headers } of PULLS('org/private')) {
      const reply = await registry.send(method, path, headers);
      assert.equal(reply.status, 401, `${method} ${path}`);
      assert.equal(reply.headers['www-authenticate'], 'Basic realm="mirror"');
      assert.equal(reply.headers['content-type'], 'application/json');
      assert.equal(reply.headers['cache-status'], undefined, 'the cache has nothing to say about it');
      if (method === 'HEAD') continue;
      const { errors } = JSON.parse(reply.text) as { errors: { code: string; message: string }[] };
      assert.deepEqual(
        errors.map(({ code, message }) => [code, message]),
        [['UNAUTHORIZED', 'authentication required']],
      );
    }
    assert.deepEqual(registry.asked, []);
    assert.deepEqual((await registry.metrics.requests.get()).values, [], 'it is not traffic of the cache');
  });

  test(`${scheme}: other pulls go on, and carry the identity that the authorizer found`, async (t) => {
    const registry = await startRegistrySide(t, { authorizer: refusesPrivate }, options);
    const pulls = PULLS('org/public');
    for (const { method, path, headers } of pulls) {
      const { status } = await registry.send(method, path, headers);
      assert.ok(status < 400, `${method} ${path}: ${status}`);
    }
    assert.equal(registry.asked.length, pulls.length - 1, 'tags?n=0 is answered without asking');
    assert.ok(registry.asked.every(({ identity }) => identity === OPERATOR));
  });
}

test('without an authorizer every client is anonymous and may pull', async (t) => {
  const registry = await startRegistrySide(t);
  for (const { method, path, headers } of PULLS('org/private')) {
    assert.ok((await registry.send(method, path, headers)).status < 400);
  }
  assert.ok(registry.asked.every(({ identity }) => identity === ANONYMOUS));
});

test('the authorizer decides about /v2/, too', async (t) => {
  const refusesAll: Authorizer = {
    authorize: async () => {
      throw new RegistryError('DENIED');
    },
  };
  const registry = await startRegistrySide(t, { authorizer: refusesAll });
  assert.equal((await registry.send('GET', '/v2/')).status, 403);
  assert.equal(
    (await (await startRegistrySide(t, { authorizer: refusesPrivate })).send('GET', '/v2/')).status,
    200,
  );
});

// The order at the door: of several faults of a request, the first is reported.
for (const [fault, method, path, status, code] of [
  ['a malformed name', 'PUT', '/v2/org/Private/manifests/1?ns=elsewhere.test', 400, 'NAME_INVALID'],
  ['a malformed tag', 'PUT', '/v2/org/private/manifests/.1?ns=elsewhere.test', 400, 'TAG_INVALID'],
  ['a malformed name of an upload', 'POST', '/v2/org/Private/blobs/uploads/', 400, 'NAME_INVALID'],
  [
    'a registry that is not configured',
    'PUT',
    '/v2/org/private/manifests/1?ns=elsewhere.test',
    404,
    'NAME_UNKNOWN',
  ],
  ['an upload to such a registry', 'POST', '/v2/elsewhere.test/a/blobs/uploads/', 404, 'NAME_UNKNOWN'],
  ['a path that is no route', 'POST', '/v1/org/private', 404, 'UNSUPPORTED'],
  ['a push', 'PUT', '/v2/org/private/manifests/1', 405, 'UNSUPPORTED'],
  ['a push of a blob', 'PATCH', '/v2/org/private/blobs/uploads/5', 405, 'UNSUPPORTED'],
  ['a deletion', 'DELETE', '/v2/', 405, 'UNSUPPORTED'],
  ['the state of an upload', 'GET', '/v2/org/private/blobs/uploads/5', 404, 'UNSUPPORTED'],
  ['a pull by nobody', 'GET', '/v2/org/private/manifests/1', 401, 'UNAUTHORIZED'],
] as const) {
  test(`reported first: ${fault}: ${method} ${path} is ${status}`, async (t) => {
    let decisions = 0;
    const authorizer: Authorizer = {
      authorize: (request, message, caller) => {
        decisions += 1;
        return refusesPrivate.authorize(request, message, caller);
      },
    };
    const registry = await startRegistrySide(t, { authorizer });
    const reply = await registry.send(method, path);
    const { errors } = JSON.parse(reply.text) as { errors: { code: string }[] };
    assert.deepEqual([reply.status, errors[0]?.code], [status, code]);
    assert.equal(reply.headers['allow'], status === 405 ? 'GET, HEAD' : undefined);
    assert.equal(reply.headers['connection'], method === 'GET' ? 'keep-alive' : 'close', 'no body is read');
    assert.equal(decisions, status === 401 ? 1 : 0);
    assert.deepEqual(registry.asked, []);
  });
}
