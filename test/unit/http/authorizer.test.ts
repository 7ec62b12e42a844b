import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import Koa from 'koa';
import { Agent } from 'undici';
import { accessLog } from '../../../src/http/registry/access-log.ts';
import type { Authorizer } from '../../../src/http/registry/authorizer.ts';
import { answerErrors } from '../../../src/http/registry/errors.ts';
import type { PullState } from '../../../src/http/registry/pull-state.ts';
import { answerPulls } from '../../../src/http/registry/pulls.ts';
import { ContentSender } from '../../../src/http/server/content-sender.ts';
import { Listener, type ListenerOptions } from '../../../src/http/server/listener.ts';
import type { FreshnessPolicy } from '../../../src/mirror/freshness.ts';
import type { MirroredUpstream } from '../../../src/mirror/mirrored-upstream.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { OCI_INDEX } from '../../../src/oci/manifest.ts';
import { ANONYMOUS, type Identity, type RequestContext } from '../../../src/request-context.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import type { Upstream } from '../../../src/upstream/upstream.ts';
import { selfSigned } from '../../helpers/certificates.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const BYTES = Buffer.from('{"schemaVersion":2}');
const SHA = digestOf(BYTES);
const CERTIFICATE = selfSigned('mirror.test');
const POLICY: FreshnessPolicy = {
  tagTtlMs: 0,
  immutableTags: [],
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  onTagDeleted: 'forget',
  negativeTtlMs: 0,
};
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
    if (request.kind === 'ping' || request.repository !== 'org/private') return OPERATOR;
    throw new RegistryError('UNAUTHORIZED', { headers: { 'WWW-Authenticate': 'Basic realm="mirror"' } });
  },
};

/** The registry side without a cache and an upstream: in their place stands what notes that it was asked. */
async function startRegistry(t: TestContext, authorizer?: Authorizer, options: ListenerOptions = {}) {
  const asked: RequestContext[] = [];
  const answer =
    <T>(reply: T) =>
    async ({ context }: { context: RequestContext }) => {
      asked.push(context);
      return reply;
    };
  const read = async (target: Buffer, position: number, end: number) => BYTES.copy(target, 0, position, end);
  const content = { size: BYTES.length, read, close: async () => undefined };
  const outcome = 'hit' as const;
  const upstream: MirroredUpstream = {
    client: { name: 'registry.test' } as Upstream,
    segments: 1,
    freshnessFor: () => POLICY,
  };
  const log: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void log.push(JSON.parse(line) as Record<string, unknown>) };
  const clock = new FakeClock();
  const app = new Koa<PullState>();
  app.silent = true;
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const logger = createLogger({ level: 'info', destination, now: () => 0 });
  app.use(accessLog({ logger, metrics, clock, destination }));
  app.use(answerErrors());
  app.use(
    answerPulls({
      table: {
        defaultUpstream: 'registry.test',
        upstreamByHost: new Map([['registry.test', 'registry.test']]),
        upstreamByVirtualHost: new Map(),
      },
      via: '1.1 test',
      upstreamByName: new Map([['registry.test', upstream]]),
      manifests: {
        open: answer({ digest: SHA, mediaType: OCI_INDEX, bytes: BYTES, size: BYTES.length, outcome }),
      },
      blobs: { open: answer({ content, outcome }), stat: answer({ size: BYTES.length, outcome }) },
      discovery: {
        tags: answer({ body: BYTES }),
        referrers: answer({ referrers: { body: BYTES }, outcome }),
      },
      sender: new ContentSender({ clientTimeoutMs: 60_000 }),
      ...(authorizer === undefined ? {} : { authorizer }),
    }),
  );
  const listener = await Listener.open({ host: '127.0.0.1', port: 0 }, app.callback(), options);
  const client = new Agent({ connect: { ca: CERTIFICATE.cert, servername: 'mirror.test' } });
  cleanUp(t, async () => {
    await client.destroy();
    await listener.drain(0);
  });
  const origin = `${options.tls === undefined ? 'http' : 'https'}://${listener.address}`;
  const send = async (method: string, path: string, headers: Record<string, string> = {}) => {
    const reply = await client.request({ origin, method, path, headers });
    return { status: reply.statusCode, headers: reply.headers, text: await reply.body.text() };
  };
  return { asked, log, metrics, send };
}

for (const [scheme, options] of [
  ['http', {}],
  ['https', { tls: CERTIFICATE }],
] as [string, ListenerOptions][]) {
  test(`${scheme}: a refused pull is 401 before cache and upstream are asked, whatever it asks for`, async (t) => {
    const registry = await startRegistry(t, refusesPrivate, options);
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
    const registry = await startRegistry(t, refusesPrivate, options);
    const pulls = PULLS('org/public');
    for (const { method, path, headers } of pulls) {
      const { status } = await registry.send(method, path, headers);
      assert.ok(status < 400, `${method} ${path}: ${status}`);
    }
    assert.equal(registry.asked.length, pulls.length - 1, 'tags?n=0 needs nobody');
    assert.ok(registry.asked.every(({ identity }) => identity === OPERATOR));
  });
}

test('without an authorizer every client is anonymous and may pull', async (t) => {
  const registry = await startRegistry(t);
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
  const registry = await startRegistry(t, refusesAll);
  assert.equal((await registry.send('GET', '/v2/')).status, 403);
  assert.equal((await (await startRegistry(t, refusesPrivate)).send('GET', '/v2/')).status, 200);
});

// The order at the door: a request with several faults is told the first of them.
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
  test(`first told about ${fault}: ${method} ${path} is ${status}`, async (t) => {
    let decisions = 0;
    const registry = await startRegistry(t, {
      authorize: (request, message) => {
        decisions += 1;
        return refusesPrivate.authorize(request, message);
      },
    });
    const reply = await registry.send(method, path);
    const { errors } = JSON.parse(reply.text) as { errors: { code: string }[] };
    assert.deepEqual([reply.status, errors[0]?.code], [status, code]);
    assert.equal(reply.headers['allow'], status === 405 ? 'GET, HEAD' : undefined);
    assert.equal(reply.headers['connection'], method === 'GET' ? 'keep-alive' : 'close', 'no body is read');
    assert.equal(decisions, status === 401 ? 1 : 0);
    assert.deepEqual(registry.asked, []);
  });
}
