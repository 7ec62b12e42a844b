/** The registry side over TLS: its own certificate, and those of clients. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { type Certificate, selfSigned } from '../helpers/certificates.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const HOST = 'mirror.test';
const MANIFEST = '/v2/org/private/manifests/1';
const PULLS = 50;

interface SetUp {
  tls?: Record<string, string>;
  access?: Record<string, unknown>;
}

async function setUp(t: TestContext, files: Record<string, string> = {}, { tls = {}, access }: SetUp = {}) {
  const clock = new FakeClock();
  clock.advance(Date.now() - clock.now()); // openssl makes certificates by the time of this machine
  const directory = await tempDir(t);
  const path = (name: string) => join(directory, name);
  /** As certbot and Kubernetes do it. */
  const replace = async (name: string, content: string) => {
    await writeFile(path(`${name}.new`), content);
    await rename(path(`${name}.new`), path(name));
  };
  const own = selfSigned(HOST);
  const all = { 'tls.crt': own.cert, 'tls.key': own.key, ...files };
  for (const [name, content] of Object.entries(all)) await replace(name, content);
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/private', '1', { layers: [5000] });
  const named = Object.fromEntries(
    Object.entries(tls).map(([key, value]) => [key, value.includes('.') ? path(value) : value]),
  );
  const mirror = await startMirror(t, {
    ...{ clock, directory, upstreams: { 'ghcr.io': upstream.url } },
    server: { tls: { certificate: path('tls.crt'), key: path('tls.key'), ...named } },
    ...(access === undefined ? {} : { access }),
  });
  /** Moves the clock until the files were looked at, and the log says how it ended. */
  const look = async (message: string) => {
    const seen = () => mirror.log.filter(({ msg }) => msg === message).length;
    for (const before = seen(); seen() === before; ) {
      clock.advance(1_000);
      await setImmediate();
    }
    clock.advance(1_000);
    await setImmediate();
  };
  return { clock, mirror, upstream, replace, look };
}

interface Asked {
  status: number;
  error: string | undefined;
  /** Of the server. */
  fingerprint: string;
}

/** @param client shown if the server asks for a certificate */
function clientOf(t: TestContext, { app }: TestMirror, client?: Certificate) {
  const [, port = ''] = /:(\d+)$/.exec(app.registryAddress) ?? [];
  const options = { rejectUnauthorized: false, servername: HOST, ...client };
  const agent = new HttpsAgent({ ...options, keepAlive: true, maxSockets: PULLS });
  cleanUp(t, async () => agent.destroy());
  return async (path: string, headers: Record<string, string> = {}): Promise<Asked> => {
    const request = requestHttps({ agent, host: '127.0.0.1', port, path, headers });
    request.end();
    const [reply] = (await once(request, 'response')) as [import('node:http').IncomingMessage];
    const socket = reply.socket as TLSSocket; // the reply lets go of it when it ends
    const fingerprint = socket.getPeerX509Certificate()?.fingerprint256 ?? '';
    const chunks: Buffer[] = [];
    for await (const chunk of reply) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    return {
      status: reply.statusCode ?? 0,
      error: body.startsWith('{"errors"') ? body : undefined,
      fingerprint,
    };
  };
}

function fingerprintOf(t: TestContext, mirror: TestMirror): Promise<string> {
  return clientOf(t, mirror)('/v2/').then(({ fingerprint }) => fingerprint);
}

test('a certificate is exchanged under fifty running pulls: none breaks, new connections get the new one', async (t) => {
  const { mirror, upstream, replace, look } = await setUp(t);
  const release = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  upstream.script({ path: /manifests/ }, (reply) => {
    held.resolve();
    reply.delay = release.promise;
  });
  const ask = clientOf(t, mirror);
  const pulls = Array.from({ length: PULLS }, () => ask(MANIFEST));
  await held.promise;
  const next = selfSigned(HOST);
  await replace('tls.key', next.key);
  await replace('tls.crt', next.cert);
  await look('changed files are in use');
  const now = await fingerprintOf(t, mirror);
  release.resolve();
  const replies = await Promise.all(pulls);
  assert.deepEqual(new Set(replies.map(({ status }) => status)), new Set([200]));
  assert.equal(now, new X509Certificate(next.cert).fingerprint256);
});

test('a new pair that does not fit is refused with a line in the log, and the old one goes on', async (t) => {
  const { mirror, replace, look } = await setUp(t);
  const before = await fingerprintOf(t, mirror);
  await replace('tls.crt', selfSigned(HOST).cert);
  await look('changed files cannot be used: the old content stays in use');
  assert.equal(await fingerprintOf(t, mirror), before);
});

test('plain HTTP on the TLS port gets a 400 that people can read', async (t) => {
  const { mirror } = await setUp(t);
  const [, port = ''] = /:(\d+)$/.exec(mirror.app.registryAddress) ?? [];
  const socket = connect(Number(port), '127.0.0.1');
  cleanUp(t, async () => void socket.destroy());
  socket.write('GET /v2/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n');
  let reply = '';
  socket.on('data', (chunk) => {
    reply += String(chunk);
  });
  await once(socket, 'close');
  assert.match(reply, /^HTTP\/1\.1 400 /);
  assert.match(reply, /this address speaks HTTPS/);
});

test('only HTTP/1.1 is offered, and nothing older than TLS 1.2', async (t) => {
  const { mirror } = await setUp(t);
  const [, port = ''] = /:(\d+)$/.exec(mirror.app.registryAddress) ?? [];
  const options = { host: '127.0.0.1', port: Number(port), rejectUnauthorized: false };
  const socket = connectTls({ ...options, ALPNProtocols: ['h2', 'http/1.1'] });
  cleanUp(t, async () => void socket.destroy());
  await once(socket, 'secureConnect');
  assert.equal(socket.alpnProtocol, 'http/1.1');
  const old = connectTls({
    ...options,
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  });
  cleanUp(t, async () => void old.destroy());
  const [error] = (await once(old, 'error')) as [Error];
  assert.match(error.message, /protocol version|unsupported protocol/i);
});

async function setUpClients(t: TestContext, clientCertificate = 'optional') {
  const authority = await TestAuthority.root(t, 'clients');
  const set = await setUp(
    t,
    { 'ca.pem': authority.cert, 'crl.pem': await authority.revocationList() },
    {
      tls: { clientCa: 'ca.pem', clientCrl: 'crl.pem', clientCertificate },
      access: { rules: [{ who: 'certificate:DNS:build-*.corp.example', pull: 'ghcr.io/org/*' }] },
    },
  );
  const issue = (name: string, purpose = 'clientAuth') =>
    authority.issue(t, {
      subject: `/CN=${name}`,
      extensions: [`subjectAltName = DNS:${name}`, `extendedKeyUsage = ${purpose}`],
    });
  return { ...set, authority, issue };
}

test('a client certificate is an identity: it pulls, its ping is 200, and what it may not pull is 403', async (t) => {
  const { mirror, issue } = await setUpClients(t);
  const ask = clientOf(t, mirror, await issue('build-1.corp.example'));
  assert.equal((await ask('/v2/')).status, 200);
  assert.equal((await ask(MANIFEST)).status, 200);
  // The line is written when the reply has ended.
  while (mirror.log.at(-1)?.['kind'] !== 'manifest') await setImmediate();
  assert.equal(mirror.log.at(-1)?.['identity'], 'certificate:CN=build-1.corp.example');
  assert.equal((await ask('/v2/other/app/manifests/1')).status, 403);
  assert.equal(
    (await ask(MANIFEST, { origin: 'https://evil.example' })).status,
    401,
    'a web page borrows it',
  );
});

test('no certificate, one that no rule names, a self-signed one, and one for servers are nobody', async (t) => {
  const { mirror, issue } = await setUpClients(t);
  const clients = [
    undefined,
    await issue('laptop.corp.example'),
    selfSigned('build-1.corp.example'),
    await issue('build-2.corp.example', 'serverAuth'),
  ];
  for (const client of clients) {
    const ask = clientOf(t, mirror, client);
    assert.equal((await ask('/v2/')).status, 401);
    assert.equal((await ask(MANIFEST)).status, 401);
  }
  const named = {
    'ssl-client-cert': 'x',
    'x-ssl-client-s-dn': 'CN=build-1.corp.example',
    'x-forwarded-user': 'ops',
  };
  assert.equal((await clientOf(t, mirror)(MANIFEST, named)).status, 401, 'headers name nobody');
});

test('a certificate that is revoked ends on a connection that stays open', async (t) => {
  const { mirror, issue, authority, replace, look } = await setUpClients(t);
  const certificate = await issue('build-1.corp.example');
  const ask = clientOf(t, mirror, certificate);
  assert.equal((await ask(MANIFEST)).status, 200);
  await authority.revoke(certificate);
  await replace('crl.pem', await authority.revocationList());
  await look('changed files are in use');
  assert.equal((await ask(MANIFEST)).status, 401);
});

test('where a certificate is required, a client without a good one is not served', async (t) => {
  const { mirror, issue } = await setUpClients(t, 'required');
  assert.equal((await clientOf(t, mirror, await issue('build-1.corp.example'))(MANIFEST)).status, 200);
  for (const client of [undefined, selfSigned('build-1.corp.example')]) {
    await assert.rejects(clientOf(t, mirror, client)('/v2/'), /alert|ECONNRESET|socket hang up|EPIPE/i);
  }
});
