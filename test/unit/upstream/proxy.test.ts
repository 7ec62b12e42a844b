import assert from 'node:assert/strict';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { suite, type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { UpstreamError } from '../../../src/upstream/errors.ts';
import { proxyForAll, proxyFromEnvironment } from '../../../src/upstream/network/proxy-rule.ts';
import type { Reply, Transport, TransportSettings } from '../../../src/upstream/network/transport.ts';
import { selfSigned } from '../../helpers/certificates.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { TestProxy, type TestProxyOptions } from '../../helpers/test-proxy.ts';
import { startTransport } from '../../helpers/test-transport.ts';

const SECURE = 'https://registry.corp.example';
const PLAIN = 'http://registry.corp.example';
const certificate = selfSigned('registry.corp.example');

function transport(t: TestContext, settings: Partial<TransportSettings>): Transport {
  return startTransport(t, { url: SECURE, ...settings });
}

function get(through: Transport, url: string): Promise<Reply> {
  return through.send({
    context: CONTEXT,
    method: 'GET',
    url: new URL(url),
    headers: { Authorization: 'Bearer t' },
    kind: 'blob',
  });
}

async function portOf(t: TestContext, server: Server | ReturnType<typeof createHttpServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  cleanUp(t, () => server.close());
  return (server.address() as AddressInfo).port;
}

/** A registry that only the proxy can resolve. `seen` has what arrived there. */
async function startBehindProxy(t: TestContext, options: TestProxyOptions = {}) {
  const seen: string[] = [];
  const answer: Parameters<typeof createHttpServer>[1] = ({ url, headers, socket }, response) => {
    const { subject } = 'getPeerCertificate' in socket ? (socket as TLSSocket).getPeerCertificate() : {};
    seen.push(
      [url, headers.host, headers.authorization, headers['proxy-authorization'], subject?.CN].join(' '),
    );
    response.end('layer');
  };
  const tls = { ...certificate, requestCert: true, rejectUnauthorized: false };
  const routes = {
    'registry.corp.example:443': await portOf(t, createServer(tls, answer)),
    'registry.corp.example': await portOf(t, createHttpServer(answer)),
  };
  return { proxy: await TestProxy.start(t, { routes, ...options }), seen };
}

function proxyError(code: string, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof UpstreamError, String(error));
    assert.match(error.message, message);
    assert.equal(error.code, code);
    assert.doesNotMatch(error.message, /hunter2|path/);
    return true;
  };
}

suite('a request goes through the proxy of its scheme', () => {
  test('https in a tunnel, which the registry’s own certificate protects', async (t) => {
    const { proxy, seen } = await startBehindProxy(t);
    const proxyFor = proxyFromEnvironment({ HTTPS_PROXY: proxy.url });
    const through = transport(t, { ca: certificate.cert, proxyFor });
    for (const path of ['/a', '/b?c', '/d', '/e', '/f'])
      assert.equal(await (await get(through, SECURE + path)).body.text(), 'layer');
    assert.deepEqual([...new Set(proxy.requests)], ['CONNECT registry.corp.example:443']);
    assert.ok(proxy.requests.length <= 2, 'tunnels are used again');
    assert.deepEqual(seen.slice(0, 2), [
      '/a registry.corp.example Bearer t  ',
      '/b?c registry.corp.example Bearer t  ',
    ]);
    assert.equal(proxy.headers[0]?.authorization, undefined);
  });

  test('http by its whole URL', async (t) => {
    const { proxy, seen } = await startBehindProxy(t);
    const proxyFor = proxyFromEnvironment({ HTTP_PROXY: proxy.url });
    const through = transport(t, { url: PLAIN, proxyFor });
    assert.equal(await (await get(through, `${PLAIN}/a?b`)).body.text(), 'layer');
    assert.deepEqual(proxy.requests, [`GET ${PLAIN}/a?b`]);
    assert.deepEqual(seen, ['/a?b registry.corp.example Bearer t  ']);
  });

  test('both, with a proxy that speaks TLS itself', async (t) => {
    const own = selfSigned('localhost', 'proxy');
    const { proxy, seen } = await startBehindProxy(t, { certificate: own });
    const through = transport(t, { ca: certificate.cert + own.cert, proxyFor: proxyForAll(proxy.url) });
    for (const url of [SECURE, PLAIN]) assert.equal(await (await get(through, url)).body.text(), 'layer');
    assert.deepEqual(proxy.requests, ['CONNECT registry.corp.example:443', `GET ${PLAIN}/`]);
    assert.equal(seen.length, 2);
  });
});

suite('TLS with the registry works as without a proxy', () => {
  test('a certificate that nobody vouches for, or of another host, is an outage', async (t) => {
    const { proxy } = await startBehindProxy(t);
    const untrusting = transport(t, { proxyFor: proxyForAll(proxy.url) });
    await assert.rejects(
      get(untrusting, `${SECURE}/path`),
      proxyError('unavailable', /self-signed certificate/),
    );
    const other = selfSigned('other.example');
    const port = await portOf(
      t,
      createServer(other, (_request, response) => response.end()),
    );
    const elsewhere = await TestProxy.start(t, { routes: { 'registry.corp.example:443': port } });
    const trusting = transport(t, { ca: other.cert, proxyFor: proxyForAll(elsewhere.url) });
    await assert.rejects(
      get(trusting, `${SECURE}/path`),
      proxyError('unavailable', /does not match certificate/),
    );
  });

  test('the client certificate is shown to the registry, and not to the proxy', async (t) => {
    const own = selfSigned('localhost', 'proxy');
    const { proxy, seen } = await startBehindProxy(t, { certificate: own });
    const through = transport(t, {
      ca: certificate.cert + own.cert,
      clientCertificate: selfSigned('millpond'),
      proxyFor: proxyForAll(proxy.url),
    });
    await (await get(through, SECURE)).body.dump();
    assert.deepEqual(seen, ['/ registry.corp.example Bearer t  millpond']);
    assert.deepEqual(proxy.clientCertificates, [undefined]);
  });
});

suite('the proxy’s credentials', () => {
  const basic = (password: string) => `Basic ${Buffer.from(`bob:${password}`).toString('base64')}`;

  test('are shown to the proxy, and not to the registry', async (t) => {
    const { proxy, seen } = await startBehindProxy(t, { authorization: () => basic('hunter2') });
    const url = proxy.url.replace('//', '//bob:hunter2@');
    const through = transport(t, {
      ca: certificate.cert,
      proxyFor: proxyFromEnvironment({ HTTPS_PROXY: url, HTTP_PROXY: url }),
    });
    for (const target of [SECURE, PLAIN]) await (await get(through, target)).body.dump();
    assert.deepEqual(seen, Array(2).fill('/ registry.corp.example Bearer t  '));
  });

  test('that change are read again for the next connection', async (t) => {
    let password = 'hunter2';
    const { proxy } = await startBehindProxy(t, { authorization: () => basic(password) });
    const proxyFor = proxyForAll(proxy.url.replace('//', '//bob@'), async () => password);
    const through = transport(t, { ca: certificate.cert, proxyFor });
    await (await get(through, PLAIN)).body.dump();
    password = 'hunter2-new';
    for (const target of [SECURE, PLAIN]) assert.equal((await get(through, target)).status, 200);
  });

  test('that cannot be read are told without saying where they are', async (t) => {
    const { proxy } = await startBehindProxy(t);
    const unreadable = async () => {
      throw new Error('secret file /hunter2 cannot be read');
    };
    const through = transport(t, { proxyFor: proxyForAll(proxy.url, unreadable) });
    for (const target of [SECURE, PLAIN])
      await assert.rejects(
        get(through, target),
        proxyError(
          'unavailable',
          /^registry\.corp: the password for the proxy 127\.0\.0\.1:\d+ cannot be read; the log says why$/,
        ),
      );
    assert.deepEqual(proxy.requests, []);
  });
});

suite('a proxy that does not do its work is named, without its credentials', () => {
  const through = (t: TestContext, proxy: { url: string }, settings: Partial<TransportSettings> = {}) =>
    transport(t, { proxyFor: proxyForAll(proxy.url.replace('//', '//bob:hunter2@')), ...settings });

  for (const status of [403, 407, 502]) {
    test(`that answers a CONNECT with ${status}`, async (t) => {
      const { proxy, seen } = await startBehindProxy(t, { status });
      const said =
        /^registry\.corp: the proxy 127\.0\.0\.1:\d+ refused to connect to registry\.corp\.example:443: it answered \d+/;
      const asks = status === 407 ? /check its user name and password$/ : /\d$/;
      await assert.rejects(get(through(t, proxy), `${SECURE}/path`), proxyError('unavailable', said));
      await assert.rejects(get(through(t, proxy), `${SECURE}/path`), proxyError('unavailable', asks));
      assert.deepEqual(seen, []);
    });
  }

  test('that answers 407 to a forwarded request', async (t) => {
    const { proxy } = await startBehindProxy(t, { status: 407 });
    const said =
      /^registry\.corp: the proxy 127\.0\.0\.1:\d+ refused to connect to registry\.corp\.example: it answered 407/;
    await assert.rejects(get(through(t, proxy), `${PLAIN}/path`), proxyError('unavailable', said));
  });

  test('that is not there', async (t) => {
    const { proxy } = await startBehindProxy(t);
    const gone = { url: proxy.url };
    await proxy.close();
    for (const target of [SECURE, PLAIN])
      await assert.rejects(
        get(through(t, gone), `${target}/path`),
        proxyError(
          'unavailable',
          /^registry\.corp: the connection was refused \(the proxy 127\.0\.0\.1:\d+\)$/,
        ),
      );
  });

  test('whose name does not resolve', async (t) => {
    for (const target of [SECURE, PLAIN])
      await assert.rejects(
        get(through(t, { url: 'http://proxy.invalid:3128' }), `${target}/path`),
        proxyError(
          'unavailable',
          /its name proxy\.invalid cannot be resolved \(E\w+\) \(the proxy proxy\.invalid:3128\)$/,
        ),
      );
  });

  test('that never answers', async (t) => {
    const { proxy } = await startBehindProxy(t, { silent: true });
    for (const [target, timeout] of [
      [SECURE, { connectTimeoutMs: 200, headersTimeoutMs: 60_000 }],
      [PLAIN, { connectTimeoutMs: 60_000, headersTimeoutMs: 200 }],
    ] as const)
      await assert.rejects(
        get(through(t, proxy, timeout), `${target}/path`),
        proxyError('timeout', /^registry\.corp: no reply in time \(the proxy 127\.0\.0\.1:\d+\)$/),
      );
  });

  test('that breaks off', async (t) => {
    const { proxy } = await startBehindProxy(t, { routes: {} });
    for (const target of [SECURE, PLAIN])
      await assert.rejects(
        get(through(t, proxy), `${target}/path`),
        proxyError('unavailable', /^registry\.corp: the connection broke \(the proxy 127\.0\.0\.1:\d+\)$/),
      );
  });
});

test('a proxy is never sent to an address that is not public, even if it could reach it', async (t) => {
  const redirects = createHttpServer((request, response) =>
    response.writeHead(307, { location: decodeURIComponent(request.url?.slice(1) ?? '') }).end(),
  );
  const routes = { 'registry.corp.example': await portOf(t, redirects) };
  const proxy = await TestProxy.start(t, { routes });
  const through = transport(t, { url: PLAIN, proxyFor: proxyForAll(proxy.url) });
  for (const target of [
    'http://10.0.0.1/',
    'http://169.254.169.254/',
    'http://[fd00::1]/',
    'http://localhost/',
    'http://x.localhost/',
  ]) {
    await assert.rejects(
      get(through, `${PLAIN}/${encodeURIComponent(target)}`),
      proxyError('invalid-response', /is not public/),
      target,
    );
    assert.throws(
      () => through.assertPublic(new URL(target)),
      proxyError('invalid-response', /is not public/),
    );
  }
  assert.ok(proxy.requests.every((request) => request.startsWith(`GET ${PLAIN}/`)));
});

test('a host in NO_PROXY is asked directly, and its address is checked', async (t) => {
  const inside = await portOf(
    t,
    createHttpServer((_request, response) => response.end('inside')),
  );
  const proxy = await TestProxy.start(t);
  const proxyFor = proxyFromEnvironment({ HTTP_PROXY: proxy.url, NO_PROXY: '.example' });
  const through = transport(t, { url: PLAIN, proxyFor });
  await assert.rejects(
    get(through, `http://localhost:${inside}`),
    proxyError('invalid-response', /not public/),
  );
  assert.deepEqual(proxy.requests, []);
});

test('closing the transport closes every connection, whatever its state', async (t) => {
  const endless = createHttpServer((_request, response) => response.write('lay'));
  const routes = { 'registry.corp.example': await portOf(t, endless) };
  cleanUp(t, () => endless.closeAllConnections());
  const patient = { connectTimeoutMs: 60_000, headersTimeoutMs: 60_000, bodyTimeoutMs: 60_000 };
  for (const [options, target] of [
    [{ routes }, PLAIN],
    [{ silent: true }, PLAIN],
    [{ silent: true }, SECURE],
  ] as const) {
    const proxy = await TestProxy.start(t, options);
    const through = transport(t, { ...patient, proxyFor: proxyForAll(proxy.url) });
    const reply = get(through, target).then(({ body }) => body.text());
    while (proxy.requests.length === 0) await setImmediate();
    await Promise.all([assert.rejects(reply), through.close()]);
    while (proxy.openConnections > 0) await setImmediate();
  }
  const { proxy } = await startBehindProxy(t);
  const through = transport(t, { ca: certificate.cert, proxyFor: proxyForAll(proxy.url) });
  for (const target of [SECURE, PLAIN]) await (await get(through, target)).body.dump();
  assert.ok(proxy.openConnections > 0);
  await through.close();
  while (proxy.openConnections > 0) await setImmediate();
});
