/** Deny lists as clients, operators and their tools meet them. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { request } from 'undici';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { basic, writeHtpasswd } from '../helpers/access-files.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { buildImage, type TestImage } from '../helpers/images.ts';
import { refused, served } from '../helpers/policies.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { exportArchive, pullImage } from '../helpers/transfers.ts';

const APP = '/v2/org/app';

async function setUp(t: TestContext, { denied = '', policy = {}, ...options }: SetUp = {}) {
  const directory = await tempDir(t);
  const file = join(directory, 'denied.txt');
  await writeFile(file, denied);
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  const start = (more: Partial<MirrorOptions> = {}) =>
    startMirror(t, {
      upstreams: {
        'ghcr.io': { url: upstream.url, aliases: ['ghcr.corp.example'] },
        ...options.more?.(upstream),
      },
      ...{ directory, clock },
      policies: [{ name: 'known-bad', deny: { digests: [file] }, ...policy }],
      ...more,
    });
  return { directory, file, upstream, clock, start };
}

interface SetUp {
  /** Content of the file. */
  denied?: string;
  policy?: Record<string, unknown>;
  more?: (upstream: ScriptedUpstream) => MirrorOptions['upstreams'];
}

/** Writes the file, and waits until its content is in use. */
async function deny({ clock, file }: { clock: FakeClock; file: string }, mirror: TestMirror, text: string) {
  const before = changes(mirror);
  await writeFile(file, text);
  while (changes(mirror) === before) {
    clock.advance(1_000);
    await setImmediate();
  }
  // The next look puts it into use.
  clock.advance(1_000);
  await setImmediate();
}

function changes({ log }: TestMirror): number {
  return log.filter(({ msg }) => msg === 'changed files are in use').length;
}

function blobsOf({ blobs }: TestImage): [config: Digest, layer: Digest] {
  const [config, layer] = blobs.map((bytes) => digestOf(bytes));
  assert.ok(config !== undefined && layer !== undefined);
  return [config, layer];
}

test('a denied image is refused by every name, and none of its layers is fetched', async (t) => {
  const image = buildImage({ layers: [5000], platforms: ['amd64', 'arm64'] });
  for (const denied of [image.top.digest, image.manifests[0]?.digest, ...blobsOf(image)]) {
    const setting = await setUp(t, { denied: `# found on a Monday\n\n${denied} # CVE\n` });
    setting.upstream.addImage('org/app', '1', { layers: [5000], platforms: ['amd64', 'arm64'] });
    const mirror = await setting.start();
    const { top, manifests } = image;
    // Its platform manifests say what it lists below.
    for (const { digest } of manifests) await mirror.get(`${APP}/manifests/${digest}`);
    for (const reference of ['1', top.digest, manifests[0]?.digest]) {
      for (const path of [
        `${APP}/manifests/${reference}`,
        `${APP}/manifests/${reference}?ns=ghcr.io`,
        `/v2/ghcr.corp.example/org/app/manifests/${reference}`,
      ]) {
        for (const accept of [undefined, OCI_INDEX, `${OCI_MANIFEST}, ${OCI_INDEX}`]) {
          const text = await refused(mirror, path, accept === undefined ? {} : { accept });
          assert.match(text, /known-bad/);
          assert.match(text, /use another image, or ask those who run this mirror/);
        }
      }
    }
    const [config, layer] = blobsOf(image);
    for (const digest of [config, layer]) {
      await refused(mirror, `${APP}/blobs/${digest}`);
      await refused(mirror, `${APP}/blobs/${digest}`, { range: 'bytes=0-9' });
    }
    await refused(mirror, `${APP}/blobs/${manifests[0]?.digest}`);
    assert.equal(setting.upstream.count('blob'), 0);
    await mirror.app.close();
  }
});

test('the refusal says in detail for machines which policy refused what', async (t) => {
  const { top } = buildImage({});
  const setting = await setUp(t, { denied: top.digest });
  setting.upstream.addImage('org/app', '1');
  const mirror = await setting.start();
  const body = JSON.parse(await refused(mirror, `${APP}/manifests/1`)) as {
    errors: { detail: Record<string, unknown> }[];
  };
  const { requestId, ...detail } = body.errors[0]?.detail ?? {};
  assert.deepEqual(detail, { policy: 'known-bad', denied: 'digest', digest: top.digest });
  assert.ok(mirror.log.some((line) => line['requestId'] === requestId && line['status'] === 403));
  assert.equal(
    await mirror.metric('millpond_policy_decisions_total', {
      policy: 'known-bad',
      decision: 'deny',
      mode: 'enforce',
    }),
    1,
  );
});

test('a denied digest is refused before upstream is asked, and so is everything in a denied repository', async (t) => {
  const { top } = buildImage({});
  const policy = { deny: { repositories: ['ghcr.corp.example/evil/*'] } };
  const setting = await setUp(t, { policy });
  const mirror = await setting.start({
    policies: [
      { name: 'known-bad', deny: { digests: [setting.file] } },
      { name: 'evil', ...policy },
    ],
  });
  await deny(setting, mirror, top.digest);
  await refused(mirror, `${APP}/manifests/${top.digest}`);
  for (const path of ['manifests/1', `blobs/${top.digest}`, 'tags/list', `referrers/${top.digest}`])
    assert.match(
      await refused(mirror, `/v2/evil/app/${path}`),
      /the repository ghcr\.io\/evil\/app is denied/,
    );
  assert.deepEqual(setting.upstream.requests, []);
});

test('what is cached is refused when it is denied, and served again when the list is corrected', async (t) => {
  const setting = await setUp(t);
  const image = setting.upstream.addImage('org/app', '1', { layers: [5000] });
  const mirror = await setting.start();
  await pullImage(mirror, 'org/app', '1');
  const [, layer] = blobsOf(image);
  await deny(setting, mirror, layer);
  await refused(mirror, `${APP}/manifests/1`);
  await refused(mirror, `${APP}/blobs/${layer}`);
  await deny(setting, mirror, '');
  setting.upstream.requests.length = 0;
  await served(mirror, `${APP}/manifests/1`);
  await served(mirror, `${APP}/blobs/${layer}`);
  assert.deepEqual(
    setting.upstream.requests.filter(({ kind }) => kind === 'blob'),
    [],
  );
});

test('a layer is refused where only a denied image lists it, and served where another one does', async (t) => {
  const setting = await setUp(t);
  const { upstream } = setting;
  const bad = upstream.addImage('org/app', 'bad', { layers: [5000], seed: 'bad' });
  const [config, layer] = blobsOf(bad);
  const good = structuredClone(JSON.parse(bad.top.bytes.toString())) as Record<string, unknown>;
  const other = Buffer.from(JSON.stringify({ ...good, annotations: { built: 'again' } }));
  upstream.addManifest('org/app', other, OCI_MANIFEST, 'good');
  upstream.addManifest('org/copy', other, OCI_MANIFEST, 'good');
  const mirror = await setting.start();
  await pullImage(mirror, 'org/app', 'bad');
  await deny(setting, mirror, bad.top.digest);
  await refused(mirror, `${APP}/blobs/${layer}`);
  // Another repository's record does not help.
  await served(mirror, '/v2/org/copy/manifests/good');
  await served(mirror, `/v2/org/copy/blobs/${layer}`);
  await refused(mirror, `${APP}/blobs/${layer}`);
  await served(mirror, `${APP}/manifests/good`);
  await served(mirror, `${APP}/blobs/${layer}`);
  await served(mirror, `${APP}/blobs/${config}`);
});

test('a layer is still refused after a restart, and where the policy came later than the layer', async (t) => {
  const setting = await setUp(t);
  const image = setting.upstream.addImage('org/app', '1', { layers: [5000] });
  const plain = await setting.start({ policies: [] });
  await pullImage(plain, 'org/app', '1');
  await plain.app.close();
  const [, layer] = blobsOf(image);
  await writeFile(setting.file, image.top.digest);
  const mirror = await setting.start();
  await refused(mirror, `${APP}/blobs/${layer}`);
  await refused(mirror, `${APP}/manifests/1`);
  await mirror.app.close();
  await writeFile(setting.file, '');
  const again = await setting.start();
  setting.upstream.requests.length = 0;
  await served(again, `${APP}/blobs/${layer}`);
  assert.deepEqual(setting.upstream.requests, []);
});

test('a layer that no manifest of the repository lists is refused, although upstream has it and it is cached', async (t) => {
  const setting = await setUp(t);
  const image = setting.upstream.addImage('org/app', '1', { layers: [5000] });
  const [, layer] = blobsOf(image);
  const plain = await setting.start({ policies: [] });
  await served(plain, `/v2/org/other/blobs/${layer}`); // upstream's word alone
  await plain.app.close();
  const mirror = await setting.start();
  setting.upstream.requests.length = 0;
  const text = await refused(mirror, `/v2/org/other/blobs/${layer}`);
  assert.match(text, /no manifest that is let in lists it here; pull the manifest of its image first/);
  assert.deepEqual(setting.upstream.requests, []);
});

test('one bad platform: the others are served, and the index is refused from when it is known to list it', async (t) => {
  const image = buildImage({ platforms: ['amd64', 'arm64'], layers: [3000] });
  const [amd64, arm64] = image.manifests.map(({ digest }) => digest);
  const layer = digestOf(image.blobs[3] ?? Buffer.alloc(0));
  const setting = await setUp(t, { denied: layer });
  setting.upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'], layers: [3000] });
  const mirror = await setting.start();
  await served(mirror, `${APP}/manifests/1`);
  await served(mirror, `${APP}/manifests/${amd64}`);
  await refused(mirror, `${APP}/manifests/${arm64}`);
  await refused(mirror, `${APP}/manifests/1`);
  await served(mirror, `${APP}/manifests/${amd64}`);
  await served(mirror, `${APP}/blobs/${digestOf(image.blobs[1] ?? Buffer.alloc(0))}`);
});

test('what only a denied index lists is refused, unless a tag or another index has it', async (t) => {
  const setting = await setUp(t);
  const { upstream } = setting;
  const image = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'], layers: [3000] });
  const [amd64, arm64] = image.manifests.map(({ digest }) => digest);
  const mirror = await setting.start();
  await pullImage(mirror, 'org/app', '1');
  await deny(setting, mirror, image.top.digest);
  await refused(mirror, `${APP}/manifests/${amd64}`);
  await refused(mirror, `${APP}/manifests/${arm64}`);
  await refused(mirror, `${APP}/blobs/${digestOf(image.blobs[1] ?? Buffer.alloc(0))}`);
  const [manifest] = image.manifests;
  assert.ok(manifest !== undefined);
  upstream.addManifest('org/app', manifest.bytes, OCI_MANIFEST, 'amd64-only');
  await mirror.get(`${APP}/manifests/amd64-only`);
  setting.clock.advance(31_000); // a refusal holds for 30 s
  await served(mirror, `${APP}/manifests/amd64-only`);
  await served(mirror, `${APP}/manifests/${amd64}`);
  await refused(mirror, `${APP}/manifests/${arm64}`);
});

test('audit counts and logs what it would refuse, and lets it pass', async (t) => {
  const { top } = buildImage({});
  const setting = await setUp(t, { denied: top.digest, policy: { mode: 'audit' } });
  const image = setting.upstream.addImage('org/app', '1');
  const mirror = await setting.start();
  await pullImage(mirror, 'org/app', '1');
  await served(mirror, `${APP}/blobs/${blobsOf(image)[1]}`);
  const labels = { policy: 'known-bad', decision: 'deny', mode: 'audit' };
  assert.equal(await mirror.metric('millpond_policy_decisions_total', labels), 1);
  assert.ok(mirror.log.some(({ msg }) => msg === 'let in, because the policy only looks'));
});

test('an exception lifts the policy for its images, until the end of its last day', async (t) => {
  const { top } = buildImage({});
  const until = '2027-12-31';
  for (const image of ['ghcr.io/org/*', top.digest, `ghcr.corp.example/org/app@${top.digest}`]) {
    const setting = await setUp(t, {
      denied: top.digest,
      policy: { except: [{ image, reason: 'a test', until }] },
    });
    setting.upstream.addImage('org/app', '1');
    const mirror = await setting.start();
    setting.clock.advance(Date.parse('2027-12-31T23:59:58Z') - setting.clock.now());
    await served(mirror, `${APP}/manifests/1`);
    await served(mirror, `${APP}/blobs/${blobsOf(buildImage({}))[1]}`);
    setting.clock.advance(2_000);
    await refused(mirror, `${APP}/manifests/1`);
    await refused(mirror, `${APP}/blobs/${blobsOf(buildImage({}))[1]}`);
    await mirror.app.close();
  }
  for (const image of ['ghcr.io/other/*', `ghcr.io/org/app@sha256:${'0'.repeat(64)}`]) {
    const elsewhere = await setUp(t, {
      denied: top.digest,
      policy: { except: [{ image, reason: 'a test', until }] },
    });
    elsewhere.upstream.addImage('org/app', '1');
    const mirror = await elsewhere.start();
    await refused(mirror, `${APP}/manifests/1`);
    await mirror.app.close();
  }
});

test('a policy is about the repositories that it matches, by their name or an alias, and about no others', async (t) => {
  const { top } = buildImage({});
  const setting = await setUp(t, { denied: top.digest, policy: { match: ['ghcr.corp.example/org/*'] } });
  for (const repository of ['org/app', 'team/app']) setting.upstream.addImage(repository, '1');
  const mirror = await setting.start();
  await refused(mirror, `${APP}/manifests/1`);
  await served(mirror, '/v2/team/app/manifests/1');
});

test('one policy that refuses is enough, in whatever order they stand', async (t) => {
  const { top } = buildImage({});
  for (const order of [0, 1]) {
    const setting = await setUp(t, { denied: top.digest });
    setting.upstream.addImage('org/app', '1');
    const policies = [
      { name: 'known-bad', deny: { digests: [setting.file] } },
      { name: 'evil', deny: { repositories: ['ghcr.io/evil/*'] } },
    ];
    const mirror = await setting.start({ policies: order === 0 ? policies : policies.toReversed() });
    assert.match(await refused(mirror, `${APP}/manifests/1`), /known-bad/);
    await mirror.app.close();
  }
});

test('a file with a bad line keeps the server from starting, and later leaves the last good list in use', async (t) => {
  const { top } = buildImage({});
  const setting = await setUp(t, { denied: `${top.digest}\nnot a digest\n` });
  setting.upstream.addImage('org/app', '1');
  await assert.rejects(setting.start(), ({ message }: Error) => {
    assert.equal(
      message,
      `${setting.file}:2: not a digest: write one a line, sha256: and 64 lower-case hexadecimal digits`,
    );
    return true;
  });
  await writeFile(setting.file, top.digest);
  const mirror = await setting.start();
  const usable = () => mirror.metric('millpond_policy_files_usable', { policy: 'known-bad' });
  assert.equal(await usable(), 1);
  await writeFile(setting.file, 'not a digest\n');
  while ((await usable()) === 1) setting.clock.advance(1_000);
  await refused(mirror, `${APP}/manifests/1`);
  const complaints = () =>
    mirror.log.filter(({ msg }) => String(msg).startsWith('changed files cannot be used'));
  assert.equal(complaints().length, 1);
  while (complaints().length < 2) {
    setting.clock.advance(10_000);
    await setImmediate();
  }
  await deny(setting, mirror, '');
  while ((await usable()) === 0) setting.clock.advance(1_000);
  await served(mirror, `${APP}/manifests/1`);
});

test('a reload takes over policies, and a list that cannot be used changes nothing', async (t) => {
  const { top } = buildImage({});
  const setting = await setUp(t, { denied: top.digest });
  setting.upstream.addImage('org/app', '1');
  const mirror = await setting.start({ policies: [] });
  await served(mirror, `${APP}/manifests/1`);
  const config = join(setting.directory, 'millpond.yaml');
  const plain = await readFile(config, 'utf8');
  const withPolicy = plain.replace(
    'policies: []',
    `policies: [{ name: known-bad, deny: { digests: [${setting.file}] } }]`,
  );
  await writeFile(config, withPolicy);
  await mirror.app.reload();
  await refused(mirror, `${APP}/manifests/1`);
  assert.equal(await mirror.metric('millpond_policy_files_usable', { policy: 'known-bad' }), 1);
  await writeFile(setting.file, 'not a digest');
  await writeFile(config, withPolicy.replace('known-bad', 'renamed'));
  await mirror.app.reload();
  assert.match(await refused(mirror, `${APP}/manifests/1`), /known-bad/);
  assert.ok(mirror.log.some(({ problem }) => /denied\.txt:1: not a digest/.test(String(problem))));
  await writeFile(config, plain);
  await mirror.app.reload();
  await served(mirror, `${APP}/manifests/1`);
});

test('a denied image is neither exported nor warmed, and both say why', async (t) => {
  const setting = await setUp(t);
  const image = setting.upstream.addImage('org/app', '1', { layers: [5000], platforms: ['amd64', 'arm64'] });
  const mirror = await setting.start();
  await pullImage(mirror, 'org/app', '1');
  const name = 'ghcr.io/org/app:1';
  await exportArchive(mirror, { images: [name] });
  await deny(setting, mirror, blobsOf(image)[1]);
  const exported = await request(`${mirror.operationsUrl}/api/export?image=${name}`);
  assert.equal(exported.statusCode, 403);
  assert.match(await exported.body.text(), /known-bad/);
  const body = JSON.stringify({ images: [name] });
  const warmed = await request(`${mirror.operationsUrl}/api/warm`, { method: 'POST', body });
  assert.match(
    await warmed.body.text(),
    /"outcome":"failed","reason":"the policy known-bad does not let this in/,
  );
});

test('who may not pull gets the refusal of access control, byte for byte, whatever the policies say', async (t) => {
  const { top } = buildImage({});
  const setting = await setUp(t, { denied: top.digest });
  setting.upstream.addImage('org/app', '1');
  const access = {
    users: {
      htpasswd: await writeHtpasswd(setting.directory, { anna: 'her password', bert: 'his password' }),
    },
    rules: [{ who: 'user:anna', pull: 'ghcr.io/org/*' }],
  };
  const replies = async (policies: boolean) => {
    const mirror = await setting.start({ access, ...(policies ? {} : { policies: [] }) });
    const paths = [`${APP}/manifests/1`, `${APP}/manifests/${top.digest}`, `${APP}/blobs/${top.digest}`];
    const found: string[] = [];
    for (const path of paths) {
      for (const headers of [{}, { authorization: basic('bert', 'his password') }]) {
        const { status, body } = await mirror.get(path, headers);
        found.push(`${status} ${body.toString().replace(/"requestId":"[^"]*"/, '')}`);
      }
    }
    const anna = await mirror.get(paths[0] ?? '', { authorization: basic('anna', 'her password') });
    assert.equal(anna.status, policies ? 403 : 200);
    await mirror.app.close();
    return found;
  };
  assert.deepEqual(await replies(true), await replies(false));
  assert.ok((await replies(true)).every((text) => /^40[13] /.test(text)));
});
