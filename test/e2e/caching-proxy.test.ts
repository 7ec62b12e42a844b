/** A real nginx in front that caches what it may, for clients that may and clients that may not. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Agent, request } from 'undici';
import { basic, writeHtpasswd } from '../helpers/access-files.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { freePort, missingPrograms, startProcess, until } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('nginx', 'openssl');
const PASSWORD = 'a password of anna';
const BASIC = basic('anna', PASSWORD);

/** Loopback has a whole network, so two addresses of it are two clients. */
const ALLOWED_ADDRESS = '127.0.0.2';
const OTHER_ADDRESS = '127.0.0.3';

async function setUp(t: TestContext) {
  const directory = await tempDir(t);
  const upstream = await ScriptedUpstream.start(t);
  const images = Object.fromEntries(
    ['team', 'certified', 'network'].map((name) => [
      name,
      upstream.addImage(`org/${name}`, '1', { layers: [5000], seed: name }),
    ]),
  );
  const authority = await TestAuthority.root(t, 'authority');
  const own = await authority.issue(t, {
    subject: '/CN=mirror',
    extensions: ['subjectAltName = IP:127.0.0.1', 'extendedKeyUsage = serverAuth'],
  });
  const front = await authority.issue(t, {
    subject: '/CN=front',
    extensions: ['subjectAltName = DNS:front.corp.example', 'extendedKeyUsage = clientAuth'],
  });
  const files = {
    'ca.pem': authority.cert,
    'tls.crt': own.cert,
    'tls.key': own.key,
    'front.crt': front.cert,
    'front.key': front.key,
  };
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content);
  const mirror = await startRealMirror(t, directory, {
    server: {
      listen: `127.0.0.1:${await freePort()}`,
      trustedProxies: ['127.0.0.1'],
      tls: {
        certificate: join(directory, 'tls.crt'),
        key: join(directory, 'tls.key'),
        clientCa: join(directory, 'ca.pem'),
      },
    },
    upstreams: { 'ghcr.io': { url: upstream.url } },
    defaultUpstream: 'ghcr.io',
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: PASSWORD }) },
      rules: [
        { who: 'user:anna', pull: 'ghcr.io/org/team' },
        { who: 'certificate:DNS:front.corp.example', pull: 'ghcr.io/org/certified' },
        { who: 'anonymous', network: ALLOWED_ADDRESS, pull: 'ghcr.io/org/network' },
      ],
    },
  });
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${directory}/${kind};`,
  );
  const conf = [
    `daemon off; user root; pid ${directory}/nginx.pid; events {} http { access_log off;`,
    ...temporary,
    `proxy_cache_path ${directory}/cache keys_zone=all:1m;`,
    `server { listen 127.0.0.1:${port}; location / {`,
    `proxy_pass https://127.0.0.1:${mirror.port}; proxy_ssl_certificate ${directory}/front.crt; proxy_ssl_certificate_key ${directory}/front.key;`,
    // Keeps everything that headers do not forbid.
    'proxy_cache all; proxy_cache_valid any 10m; add_header X-Front-Cache $upstream_cache_status always;',
    'proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;',
    'proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;',
    '} } }',
  ];
  await writeFile(join(directory, 'nginx.conf'), conf.join('\n'));
  const nginx = startProcess(t, 'nginx', [
    '-c',
    join(directory, 'nginx.conf'),
    '-e',
    join(directory, 'error.log'),
  ]);
  const ask = async (path: string, headers: Record<string, string> = {}, localAddress = '127.0.0.1') => {
    const dispatcher = new Agent({ localAddress });
    try {
      const reply = await request(`http://127.0.0.1:${port}${path}`, { headers, dispatcher });
      return {
        status: reply.statusCode,
        body: Buffer.from(await reply.body.arrayBuffer()),
        headers: reply.headers,
      };
    } finally {
      await dispatcher.destroy();
    }
  };
  await until('nginx', nginx, async () => (await ask('/v2/')).status === 401);
  cleanUp(t, () => nginx.stop());
  return { ask, images, upstream };
}

test('by Bearer: what one may pull is not kept for one who may not, and refusals are not kept either', {
  skip,
}, async (t) => {
  const { ask, images } = await setUp(t);
  const login = await ask('/token?service=millpond', { authorization: BASIC });
  const authorization = `Bearer ${(JSON.parse(login.body.toString()) as { token: string }).token}`;
  const image = images['team'];
  const path = '/v2/org/team/manifests/1';
  for (let round = 0; round < 2; round += 1) {
    assert.equal((await ask(path)).status, 401);
    const pulled = await ask(path, { authorization });
    assert.deepEqual([pulled.status, pulled.body], [200, image?.top.bytes]);
    assert.notEqual(pulled.headers['x-front-cache'], 'HIT');
    assert.equal((await ask(path, { 'if-none-match': `"${image?.top.digest}"` })).status, 401);
    assert.equal((await ask(path, { range: 'bytes=0-9' })).status, 401);
  }
  assert.equal(
    (await ask('/token?service=millpond', {}, ALLOWED_ADDRESS)).status,
    200,
    'an anonymous token: some network may pull something',
  );
  assert.equal(
    (await ask('/token?service=millpond', {}, ALLOWED_ADDRESS)).headers['x-front-cache'],
    'MISS',
    'tokens are not kept',
  );
});

test('by certificate: the one of the front server is not that of its clients', { skip }, async (t) => {
  const { ask, upstream } = await setUp(t);
  assert.equal((await ask('/v2/')).status, 401);
  assert.equal((await ask('/v2/org/certified/manifests/1')).status, 401);
  assert.equal((await ask('/v2/org/certified/manifests/1', { authorization: BASIC })).status, 403);
  assert.equal(upstream.totalConnections, 0);
});

test('by network: the client that nginx names counts, whatever it says of itself in either header', {
  skip,
}, async (t) => {
  const { ask, images } = await setUp(t);
  const path = '/v2/org/network/manifests/1';
  const lies = {
    'x-forwarded-for': ALLOWED_ADDRESS,
    forwarded: `for=${ALLOWED_ADDRESS}`,
    'x-real-ip': ALLOWED_ADDRESS,
  };
  for (let round = 0; round < 2; round += 1) {
    const pulled = await ask(path, {}, ALLOWED_ADDRESS);
    assert.deepEqual([pulled.status, pulled.body], [200, images['network']?.top.bytes]);
    for (const headers of [{}, lies]) assert.equal((await ask(path, headers, OTHER_ADDRESS)).status, 401);
    const far = { 'x-forwarded-for': '192.0.2.1', forwarded: 'for=192.0.2.1' };
    assert.equal((await ask(path, far, ALLOWED_ADDRESS)).status, 200);
  }
});
