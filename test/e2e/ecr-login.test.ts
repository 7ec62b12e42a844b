import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { cleanUp } from '../helpers/cleanup.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { TestProxy } from '../helpers/test-proxy.ts';

const REGION = 'eu-west-1';
const REGISTRY = `123456789012.dkr.ecr.${REGION}.amazonaws.com`;
const API = `api.ecr.${REGION}.amazonaws.com`;
const PASSWORD = 'twelve-hours';
const skip = missingPrograms('docker-credential-ecr-login', 'openssl');

test('the real docker-credential-ecr-login gets the password of a simulated ECR, and the registry sees it', {
  skip,
}, async (t) => {
  const directory = await tempDir(t);
  const [key, ca] = [join(directory, 'key.pem'), join(directory, 'ca.pem')];
  // Go, in which the helper is written, is strict about certificates: openssl's will do.
  await run('openssl', [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', `/CN=${API}`],
    ...['-addext', `subjectAltName=DNS:${API}`, '-keyout', key, '-out', ca],
  ]);
  const certificate = { cert: await readFile(ca, 'utf8'), key: await readFile(key, 'utf8') };
  const asked: string[] = [];
  const ecr = createServer(certificate, (request, response) => {
    asked.push(String(request.headers['x-amz-target']));
    const authorizationToken = Buffer.from(`AWS:${PASSWORD}`).toString('base64');
    const expiresAt = Math.floor(Date.now() / 1000) + 12 * 3600;
    const proxyEndpoint = `https://${REGISTRY}`;
    response.writeHead(200, { 'content-type': 'application/x-amz-json-1.1' });
    response.end(JSON.stringify({ authorizationData: [{ authorizationToken, expiresAt, proxyEndpoint }] }));
  });
  await new Promise<void>((resolve) => ecr.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => ecr.close());
  const proxy = await TestProxy.start(t, {
    routes: { [`${API}:443`]: (ecr.address() as AddressInfo).port },
  });
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', '1');
  const expected = `Basic ${Buffer.from(`AWS:${PASSWORD}`).toString('base64')}`;
  upstream.script({}, (reply, { headers }) => {
    if (headers.authorization === expected) return;
    const challenge = {
      'www-authenticate': `Basic realm="https://${REGISTRY}/",service="ecr.amazonaws.com"`,
    };
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', challenge));
  });
  const dockerConfig = join(directory, 'config.json');
  await writeFile(dockerConfig, JSON.stringify({ credHelpers: { [REGISTRY]: 'ecr-login' } }));
  const mirror = await startRealMirror(
    t,
    directory,
    {
      defaultUpstream: REGISTRY,
      upstreams: { [REGISTRY]: { url: upstream.url, credentials: { dockerConfig } } },
    },
    {
      HOME: directory,
      HTTPS_PROXY: proxy.url,
      AWS_CA_BUNDLE: ca,
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: 'example',
    },
  );
  for (let pull = 0; pull < 2; pull += 1) {
    const reply = await fetch(`http://127.0.0.1:${mirror.port}/v2/org/app/tags/list`);
    assert.equal(reply.status, 200, await reply.text());
  }
  assert.deepEqual(asked, ['AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken']);
  assert.ok(!mirror.process.lines.join('\n').includes(PASSWORD));
});
