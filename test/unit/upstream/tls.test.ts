import assert from 'node:assert/strict';
import { createSecureServer, type Http2SecureServer } from 'node:http2';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { getCACertificates, setDefaultCACertificates, type TLSSocket } from 'node:tls';
import { UpstreamError } from '../../../src/upstream/errors.ts';
import type { Reply, Transport, TransportSettings } from '../../../src/upstream/network/transport.ts';
import { type Certificate, selfSigned } from '../../helpers/certificates.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { startTransport } from '../../helpers/test-transport.ts';

function transport(t: TestContext, settings: Partial<TransportSettings> & { url: string }): Transport {
  return startTransport(t, { allowPrivateAddresses: true, ...settings });
}

function get(through: Transport, url: string): Promise<Reply> {
  return through.send({ context: CONTEXT, method: 'GET', url: new URL(url), headers: {}, kind: 'blob' });
}

/** Starts `server`, and closes it after the test. @returns its URL with the name in its certificate */
async function urlOf(t: TestContext, server: Server | Http2SecureServer): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  cleanUp(t, () => server.close());
  return `https://localhost:${(server.address() as AddressInfo).port}`;
}

/** Adds an authority to Node's list for this test. */
function trustForThisTest(t: TestContext, { cert }: Certificate): void {
  const usual = getCACertificates('default');
  setDefaultCACertificates([...usual, cert]);
  cleanUp(t, () => setDefaultCACertificates(usual));
}

test('a CA of the company is trusted, and so are the usual ones: its registry may lead to a public CDN', async (t) => {
  const [company, usual] = [selfSigned('localhost', 'company'), selfSigned('localhost', 'usual')];
  trustForThisTest(t, usual);
  const cdn = await urlOf(
    t,
    createServer(usual, (_request, response) => response.end('layer')),
  );
  const redirect = { location: `${cdn}/layer` };
  const registry = await urlOf(
    t,
    createServer(company, (_request, response) => response.writeHead(307, redirect).end()),
  );
  const reply = await get(transport(t, { url: registry, ca: company.cert }), registry);
  assert.equal(await reply.body.text(), 'layer');
});

test('a certificate that nobody vouches for is an outage, told without the path of the request', async (t) => {
  const url = await urlOf(
    t,
    createServer(selfSigned('localhost'), (_request, response) => response.end()),
  );
  for (const ca of [undefined, selfSigned('localhost').cert]) {
    const through = transport(t, { url, ...(ca === undefined ? {} : { ca }) });
    await assert.rejects(get(through, `${url}/path?sig=SECRET`), (error) => {
      assert.ok(error instanceof UpstreamError);
      assert.equal(error.code, 'unavailable');
      assert.match(error.message, /^registry\.corp: self-signed certificate.* \(localhost:\d+\)$/);
      assert.doesNotMatch(error.message, /SECRET|path/);
      return true;
    });
  }
});

test('a certificate of another host is an outage, too', async (t) => {
  const other = selfSigned('other.example');
  const url = await urlOf(
    t,
    createServer(other, (_request, response) => response.end()),
  );
  await assert.rejects(get(transport(t, { url, ca: other.cert }), url), {
    code: 'unavailable',
    message: /does not match certificate.*\(localhost:\d+\)$/,
  });
});

test('the client certificate is shown to the registry, and to nobody that it leads to', async (t) => {
  const [server, client] = [selfSigned('localhost'), selfSigned('millpond')];
  const shown: (string | undefined)[] = [];
  const asking = { ...server, requestCert: true, rejectUnauthorized: false };
  const note = (socket: unknown) => {
    const { subject } = (socket as TLSSocket).getPeerCertificate();
    shown.push(subject?.CN === undefined ? undefined : String(subject.CN));
  };
  const cdn = await urlOf(
    t,
    createServer(asking, ({ socket }, response) => {
      note(socket);
      response.end('layer');
    }),
  );
  const registry = await urlOf(
    t,
    createServer(asking, ({ socket }, response) => {
      note(socket);
      response.writeHead(307, { location: cdn }).end();
    }),
  );
  const through = transport(t, { url: registry, ca: server.cert, clientCertificate: client });
  assert.equal(await (await get(through, registry)).body.text(), 'layer');
  assert.deepEqual(shown, ['millpond', undefined]);
});

test('a client certificate that cannot be read fails the start, and not the first pull', (t) => {
  const clientCertificate = { cert: 'no certificate', key: 'no key' };
  assert.throws(() => transport(t, { url: 'https://registry.example', clientCertificate }), /registry\.corp/);
});

test('the mirror uses HTTP/1.1 even with a server that prefers HTTP/2', async (t) => {
  const certificate = selfSigned('localhost');
  const url = await urlOf(
    t,
    createSecureServer({ ...certificate, allowHTTP1: true }, ({ httpVersion }, response) =>
      response.end(httpVersion),
    ),
  );
  const reply = await get(transport(t, { url, ca: certificate.cert }), url);
  assert.equal(await reply.body.text(), '1.1');
});
