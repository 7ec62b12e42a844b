import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { type Certificate, selfSigned } from '../helpers/certificates.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const blob = Buffer.from('layer');
const PATH = `/v2/a/b/blobs/${digestOf(blob)}`;

/** @returns its port */
async function serve(t: TestContext, certificate: Certificate, location?: string): Promise<number> {
  const server = createServer(certificate, (_request, response) =>
    location === undefined ? response.end(blob) : response.writeHead(307, { location }).end(),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  cleanUp(t, () => server.close());
  return (server.address() as AddressInfo).port;
}

test('NODE_EXTRA_CA_CERTS is trusted, alone and in addition to the ca of an upstream', async (t) => {
  const directory = await tempDir(t);
  const [extra, own] = [selfSigned('localhost', 'extra'), selfSigned('localhost', 'own')];
  const [extraFile, ownFile] = [join(directory, 'extra.pem'), join(directory, 'own.pem')];
  await Promise.all([writeFile(extraFile, extra.cert), writeFile(ownFile, own.cert)]);
  const cdn = `https://localhost:${await serve(t, extra)}`;
  const registry = `https://localhost:${await serve(t, own, `${cdn}/layer`)}`;
  const upstreams = {
    'extra.example': { url: cdn },
    'both.example': { url: registry, ca: ownFile },
    'own.example': { url: registry },
  };
  const config = { defaultUpstream: 'extra.example', upstreams };
  const mirror = await startRealMirror(t, directory, config, { NODE_EXTRA_CA_CERTS: extraFile });
  for (const [upstream, status] of [
    ['own.example', 502],
    ['extra.example', 200],
    ['both.example', 200],
  ] as const) {
    const { pathname } = new URL(`http://m${PATH.replace('/v2/', `/v2/${upstream}/x-${status}/`)}`);
    const reply = await fetch(`http://127.0.0.1:${mirror.port}${pathname}`);
    const text = await reply.text();
    assert.equal(reply.status, status, text);
    if (status === 502) assert.match(text, /own\.example: self-signed certificate/);
  }
});
