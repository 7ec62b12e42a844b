/** Policies as real clients meet them: what is signed, or clean, comes in, and all else does not. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { engine, missingEngines } from '../helpers/engines.ts';
import {
  LOGIN_CLIENTS,
  prepareCraneLogin,
  preparePodmanLogin,
  refusalOf,
  startContainerdLogin,
} from '../helpers/login-clients.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { cosign, missingGo, notationSigner } from '../helpers/signatures/signing-programs.ts';
import {
  assertTold,
  CLIENTS_OF_SCANS,
  downloads,
  pullDuringScan,
  scannedSetUp,
} from '../helpers/slow-scans.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { startTlsMirror } from '../helpers/tls-mirror.ts';
import { ADVISORY, makeDatabase } from '../helpers/trivy-database.ts';

const programs = [
  'docker-registry',
  'dockerd',
  'containerd',
  'ctr',
  'podman',
  'skopeo',
  'busybox',
  'openssl',
];
const skip = missingPrograms(...programs) || missingEngines('crane', 'oras', 'containerd', 'cosign', 'trivy');
const OFFLINE = ['--allow-http-registry', '--tlog-upload=false', '--use-signing-config=false', '--yes'];
const PULL_TRIES = 200;

interface Manifests {
  manifests: { digest: string }[];
}

interface Layers {
  config: { digest: string };
  layers: { digest: string }[];
}

async function makeKeys(t: TestContext): Promise<{ folder: string; privateKey: string; publicKey: string }> {
  const folder = await tempDir(t);
  await cosign(folder, 'generate-key-pair', '--output-key-prefix', join(folder, 'cosign'));
  return { folder, privateKey: join(folder, 'cosign.key'), publicKey: join(folder, 'cosign.pub') };
}

async function signedSetUp(t: TestContext) {
  const directory = await tempDir(t);
  const registry = await RealRegistry.start(t);
  const image = await makeImage(directory);
  const [right, wrong] = [await makeKeys(t), await makeKeys(t)];
  for (const name of ['signed', 'older', 'plain', 'other-key', 'notation', 'tampered'])
    await pushImage(image, registry, `library/${name}:1`);
  const sign = ({ folder, privateKey }: typeof right, name: string, ...more: string[]) => {
    const target = `127.0.0.1:${registry.port}/library/${name}@${image.digest}`;
    return cosign(folder, 'sign', '--key', privateKey, ...OFFLINE, ...more, target);
  };
  await sign(right, 'signed');
  await sign(right, 'older', '--new-bundle-format=false');
  await sign(wrong, 'other-key');
  await moveSignature(registry, image.digest);
  await tamperBundle(registry, image.digest);
  const config = {
    upstreams: { 'docker.io': { url: registry.url } },
    policies: [{ name: 'signed-by-us', signature: { cosign: { keys: [right.publicKey] } } }],
  };
  return { directory, registry, image, keys: right, config };
}

/** Puts the right signature of one image under the tag for that of another one. */
async function moveSignature(registry: RealRegistry, signed: string): Promise<void> {
  const [from, to] = ['older', 'moved'].map((name) => `127.0.0.1:${registry.port}/library/${name}`);
  const crane = (...args: string[]) => run(engine('crane'), [...args, '--insecure']);
  await crane('index', 'filter', '--platform', 'linux/amd64', `${from}:1`, '--tag', `${to}:1`);
  const digest = (await crane('digest', `${to}:1`)).trim();
  assert.notEqual(digest, signed);
  const tagOf = (text: string) => `${text.replace(':', '-')}.sig`;
  await crane('copy', `${from}:${tagOf(signed)}`, `${to}:${tagOf(digest)}`);
}

/** Copies the bundle of a signed image, with one character of the signature changed. */
async function tamperBundle(registry: RealRegistry, signed: string): Promise<void> {
  const [from, to] = ['signed', 'tampered'].map((name) => `${registry.url}/v2/library/${name}`);
  const read = async (path: string) => {
    // Without it this registry says that an index is not there.
    const reply = await fetch(`${from}/${path}`, { headers: { accept: `${OCI_INDEX}, ${OCI_MANIFEST}` } });
    assert.equal(reply.status, 200, path);
    return Buffer.from(await reply.arrayBuffer());
  };
  const put = async (target: URL, body: Buffer, type: string) => {
    const reply = await fetch(target, { method: 'PUT', body, headers: { 'content-type': type } });
    assert.equal(reply.status, 201, await reply.text());
  };
  const putBlob = async (bytes: Buffer) => {
    const upload = await fetch(`${to}/blobs/uploads/`, { method: 'POST' });
    const target = new URL(upload.headers.get('location') ?? '', registry.url);
    target.searchParams.set('digest', digestOf(bytes));
    await put(target, bytes, 'application/octet-stream');
  };
  const tag = signed.replace(':', '-');
  const index = JSON.parse((await read(`manifests/${tag}`)).toString()) as Manifests;
  const manifest = JSON.parse((await read(`manifests/${index.manifests[0]?.digest}`)).toString()) as Layers;
  const [layer] = manifest.layers;
  assert.ok(layer && index.manifests.length === 1 && manifest.layers.length === 1);
  const bundle = (await read(`blobs/${layer.digest}`)).toString();
  const tampered = Buffer.from(
    bundle.replace(
      /("sig":\s*".{20})(.)/,
      (_, before: string, one: string) => before + (one === 'A' ? 'B' : 'A'),
    ),
  );
  assert.notEqual(tampered.toString(), bundle);
  await putBlob(tampered);
  await putBlob(await read(`blobs/${manifest.config.digest}`));
  const layers = [{ ...layer, digest: digestOf(tampered) }];
  const changed = Buffer.from(JSON.stringify({ ...manifest, layers }));
  await put(new URL(`${to}/manifests/${digestOf(changed)}`), changed, OCI_MANIFEST);
  const manifests = [{ ...index.manifests[0], digest: digestOf(changed), size: changed.length }];
  await put(
    new URL(`${to}/manifests/${tag}`),
    Buffer.from(JSON.stringify({ ...index, manifests })),
    OCI_INDEX,
  );
}

for (const [name, prepare] of Object.entries(LOGIN_CLIENTS)) {
  test(`${name} pulls what cosign has signed, and is told why nothing else comes in`, { skip }, async (t) => {
    const { directory, config } = await signedSetUp(t);
    const { address } = await startTlsMirror(t, directory, config);
    const client = await prepare(t, address);
    for (const repository of ['signed', 'older']) await client.pull(`docker.io/library/${repository}`);
    for (const repository of ['plain', 'other-key', 'moved', 'tampered']) {
      const text = await refusalOf(() => client.pull(`docker.io/library/${repository}`));
      assertTold(text, address, /signed-by-us does not let this in/, '403');
    }
  });
}

test("what Notation's own library has signed is pulled by real clients, and what it has not is refused", {
  skip: skip || missingGo(),
}, async (t) => {
  const { directory, registry, image, config } = await signedSetUp(t);
  const signer = await notationSigner();
  const root = await TestAuthority.root(t, 'Root');
  const extensions = ['keyUsage = critical, digitalSignature', 'extendedKeyUsage = codeSigning'];
  const leaf = await root.issue(t, { subject: '/C=US/ST=WA/O=acme/CN=builder', extensions });
  const files = { 'chain.pem': leaf.cert + root.cert, 'key.pem': leaf.key, 'root.pem': root.cert };
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content);
  const target = `127.0.0.1:${registry.port}/library/notation@${image.digest}`;
  const [chain, key, authority] = Object.keys(files).map((name) => join(directory, name));
  await run(signer, [chain ?? '', key ?? '', target, 'application/jose+json', '0s']);
  const notation = { trustStore: [authority], identities: ['x509.subject: C=US, ST=WA, O=acme'] };
  const { address } = await startTlsMirror(t, directory, {
    ...config,
    policies: [{ name: 'signed-by-us', signature: { notation } }],
  });
  for (const prepare of [preparePodmanLogin, startContainerdLogin, prepareCraneLogin]) {
    const client = await prepare(t, address);
    await client.pull('docker.io/library/notation');
    // cosign's signature is none of Notation's.
    const text = await refusalOf(() => client.pull('docker.io/library/signed'));
    assertTold(text, address, /signed-by-us does not let this in/, '403');
  }
});

test('cosign verify goes on working through the mirror, in both forms', { skip }, async (t) => {
  const { directory, image, keys, config } = await signedSetUp(t);
  const mirror = await startRealMirror(t, directory, config);
  for (const repository of ['signed', 'older']) {
    const target = `127.0.0.1:${mirror.port}/docker.io/library/${repository}@${image.digest}`;
    const options = ['--key', keys.publicKey, '--allow-http-registry', '--insecure-ignore-tlog=true'];
    await cosign(keys.folder, 'verify', ...options, target);
  }
});

test('the real Trivy gates the first pull of twenty clients: one scan, one download; then its database changes', {
  skip,
}, async (t) => {
  const { directory, upstream, image } = await scannedSetUp(t);
  const mirror = await startRealMirror(
    t,
    directory,
    {
      upstreams: { 'docker.io': { url: upstream.url } },
      policies: [
        {
          name: 'no-criticals',
          scan: {
            ...{ trivy: engine('trivy'), failOn: 'critical', rescan: '10s' },
            environment: ['TRIVY_DB_REPOSITORY', 'TRIVY_JAVA_DB_REPOSITORY'],
          },
        },
      ],
      retryRefused: '1s',
    },
    // Nobody listens there: the databases are those that the test makes.
    { TRIVY_DB_REPOSITORY: '127.0.0.1:9/db:2', TRIVY_JAVA_DB_REPOSITORY: '127.0.0.1:9/java:1' },
  );
  const database = join(directory, 'data/scan/no-criticals/cache');
  await makeDatabase(database, ADVISORY);
  const pull = async () => {
    const reply = await fetch(`http://127.0.0.1:${mirror.port}/v2/docker.io/library/app/manifests/1`);
    return `${reply.status} ${await reply.text()}`;
  };
  const replies = await Promise.all(Array.from({ length: 20 }, pull));
  for (const reply of replies)
    assert.match(reply, /^403 .*no-criticals does not let this in: .*CVE-2024-9999/);
  assert.equal(downloads(upstream, image), 1);
  const metrics = await (await fetch(`http://127.0.0.1:${mirror.operationsPort}/metrics`)).text();
  assert.match(metrics, /millpond_policy_scans_total\{policy="no-criticals",result="found"\} 1\n/);
  await makeDatabase(database);
  let reply = await pull();
  for (let tries = 0; !reply.startsWith('200') && tries < PULL_TRIES; tries += 1) {
    await setTimeout(200); // its clock cannot be moved
    reply = await pull();
  }
  assert.match(reply, /^200/);
  assert.equal(downloads(upstream, image), 1);
});

for (const [name, prepare] of Object.entries(CLIENTS_OF_SCANS)) {
  test(
    `a scan that takes longer than ${name} waits: the first pull fails with our text, one after it succeeds`,
    {
      skip,
    },
    (t) => pullDuringScan(t, prepare, { policyWait: '3s', scanMs: 0 }),
  );
}
