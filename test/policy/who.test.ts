/** Policies that are about the requests of some. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { basic, writeHtpasswd } from '../helpers/access-files.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const APP = '/v2/org/app';

test('a policy with who is about the requests of these alone, for manifests and layers, in whatever order they come', async (t) => {
  const directory = await tempDir(t);
  const upstream = await ScriptedUpstream.start(t);
  const { blobs } = upstream.addImage('org/app', '1', { layers: [5000] });
  const passwords = { anna: 'her password', bert: 'his password' };
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': upstream.url },
    directory,
    access: {
      users: { htpasswd: await writeHtpasswd(directory, passwords) },
      rules: [{ who: ['anonymous', 'user:*'], pull: 'ghcr.io/*' }],
    },
    policies: [{ name: 'not-for-anna', who: ['user:anna'], deny: { repositories: ['ghcr.io/org/*'] } }],
    operations: { listen: '127.0.0.1:0' },
  });
  const layer = digestOf(blobs[1] ?? Buffer.alloc(0));
  for (let round = 0; round < 2; round += 1) {
    for (const path of [`${APP}/manifests/1`, `${APP}/blobs/${layer}`, `${APP}/tags/list`]) {
      const anna = await mirror.get(path, { authorization: basic('anna', passwords.anna) });
      assert.equal(anna.status, 403, path);
      assert.match(anna.body.toString(), /not-for-anna/);
      const bert = await mirror.get(path, { authorization: basic('bert', passwords.bert) });
      assert.equal(bert.status, 200, path);
    }
    assert.equal((await mirror.get(`${APP}/manifests/1`)).status, 200);
  }
});

test('to warm has to pass all policies, whomever they are about', async (t) => {
  const directory = await tempDir(t);
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', '1');
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': upstream.url },
    directory,
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: 'her password' }) },
      rules: [
        { who: 'anonymous', pull: 'ghcr.io/*' },
        { who: 'user:anna', pull: 'ghcr.io/*', operate: true },
      ],
    },
    policies: [{ name: 'no-ci', who: ['token:*', 'anonymous'], deny: { repositories: ['ghcr.io/org/*'] } }],
    operations: { listen: '127.0.0.1:0' },
    operator: { authorization: basic('anna', 'her password') },
  });
  const reply = await request(`${mirror.operationsUrl}/api/warm`, {
    method: 'POST',
    headers: { authorization: basic('anna', 'her password') },
    body: JSON.stringify({ images: ['ghcr.io/org/app:1'] }),
  });
  const anna = await reply.body.text();
  assert.match(anna, /"outcome":"done"/, 'she pulls by her own name');
});
