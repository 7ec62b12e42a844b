import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { prepareSkopeo } from '../helpers/real-clients.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { startRealTokenServer } from '../helpers/real-token-server.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const CREDENTIALS = { username: 'team', password: 'correct horse' };
const skip = missingPrograms('docker-registry', 'skopeo', 'busybox', 'openssl');

for (const [what, password, arrives] of [
  ['the mirror’s credentials', CREDENTIALS.password, true],
  ['wrong credentials', 'wrong', false],
] as const) {
  test(`a registry behind a token server: with ${what} the pull ${arrives ? 'arrives' : 'is refused'}`, {
    skip,
  }, async (t) => {
    const tokens = await startRealTokenServer(t, CREDENTIALS);
    const registry = await RealRegistry.start(t, tokens.auth);
    const directory = await tempDir(t);
    const image = await makeImage(directory);
    await pushImage(image, registry, 'library/busybox:1', `${CREDENTIALS.username}:${CREDENTIALS.password}`);
    tokens.users.length = 0;
    const credentials = { username: CREDENTIALS.username, password: { env: 'PASSWORD' } };
    const upstreams = { 'docker.io': { url: registry.url, credentials } };
    const mirror = await startRealMirror(t, directory, { upstreams }, { PASSWORD: password });
    const client = await prepareSkopeo(t, mirror.port);
    if (!arrives) {
      await assert.rejects(client.pull(), /denied|unauthorized/i);
      return;
    }
    await client.pull();
    assert.equal(digestOf(await readFile(join(client.target, 'manifest.json'))), image.digest);
    assert.deepEqual(tokens.users, [CREDENTIALS.username], 'one token for the whole pull');
    const log = mirror.process.lines.join('\n');
    assert.ok(!log.includes(CREDENTIALS.password) && !log.includes('Bearer'), 'no secret in the log');
  });
}
