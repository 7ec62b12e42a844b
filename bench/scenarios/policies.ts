/** What policies cost a hit, where everything has been decided. */
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ACCEPT_LINE, addManifest, measureRequests, REPOSITORY } from '../lib/measure.ts';
import type { Server } from '../lib/peers.ts';
import type { Lab, Scenario } from '../lib/scenario.ts';

const MANIFEST = `/v2/${REPOSITORY}/manifests/1`;
const DENIED = 1000;
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

const policiesOf = new WeakMap<Lab, Record<string, unknown>[]>();

/** An image that is signed as cosign does it, and five policies that let it in. */
async function prepare(lab: Lab): Promise<void> {
  const digest = await addManifest(lab);
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const [key, denied] = [join(lab.directory, 'cosign.pub'), join(lab.directory, 'denied.txt')];
  await writeFile(key, publicKey.export({ type: 'spki', format: 'pem' }));
  const digests = Array.from({ length: DENIED }, () => `sha256:${randomBytes(32).toString('hex')}\n`);
  await writeFile(denied, digests.join(''));
  const payload = Buffer.from(
    JSON.stringify({
      critical: {
        identity: { 'docker-reference': REPOSITORY },
        image: { 'docker-manifest-digest': digest },
        type: 'cosign container image signature',
      },
    }),
  );
  const config = Buffer.from('{}');
  await lab.upstream.addManifest(REPOSITORY, `${digest.replace(':', '-')}.sig`, OCI_MANIFEST, {
    ...{ schemaVersion: 2, mediaType: OCI_MANIFEST },
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      ...{ digest: await lab.upstream.addBlob(config), size: config.length },
    },
    layers: [
      {
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        ...{ digest: await lab.upstream.addBlob(payload), size: payload.length },
        annotations: {
          'dev.cosignproject.cosign/signature': sign('sha256', payload, privateKey).toString('base64'),
        },
      },
    ],
  });
  policiesOf.set(lab, [
    { name: 'signed-by-us', signature: { cosign: { keys: [key] } } },
    { name: 'cool-down', minimumAge: '0s' },
    { name: 'known-bad', deny: { digests: [denied], repositories: ['upstream.test/evil/*'] } },
    { name: 'no-evil', deny: { repositories: ['*/evil'] } },
    { name: 'look-only', mode: 'audit', signature: {} },
  ]);
}

/**
 * A server without policies and one with five, side by side, both warm. New ones for each run: what a hit costs differs
 * from process to process by more than policies cost.
 */
async function startPair(lab: Lab): Promise<{ without: Server; guarded: Server }> {
  const { millpond: like } = lab.servers;
  if (like === undefined) throw new Error('this scenario needs Millpond');
  const start = async (settings: Record<string, unknown>) =>
    lab.startAnother(like, await mkdtemp(join(lab.directory, 'pair-')), settings);
  const [without, guarded] = [await start({}), await start({ policies: policiesOf.get(lab) })];
  for (const { port } of [without, guarded]) {
    const reply = await fetch(`http://127.0.0.1:${port}${MANIFEST}`);
    if (!reply.ok) throw new Error(`not let in: ${await reply.text()}`);
    await reply.arrayBuffer();
  }
  return { without, guarded };
}

export const policies: Scenario = {
  name: 'policies',
  does: 'a warm manifest by tag, 32 connections kept alive, 3 s: under five policies that let it in, and without any',
  peers: ['millpond'],
  needs: 'wrk',
  prepare,
  measure: async (lab) => {
    const { without, guarded } = await startPair(lab);
    const plain = await measureRequests(lab, without, MANIFEST, [ACCEPT_LINE]);
    const under = await measureRequests(lab, guarded, MANIFEST, [ACCEPT_LINE]);
    const [cpu = Number.NaN, plainCpu = Number.NaN] = [
      under['cpuSecondsPer1000'],
      plain['cpuSecondsPer1000'],
    ];
    await Promise.all([without.stop(), guarded.stop()]);
    return { cpuSecondsPer1000: cpu, withoutCpuSecondsPer1000: plainCpu, policiesOverNone: cpu / plainCpu };
  },
  shows: ['withoutCpuSecondsPer1000', 'cpuSecondsPer1000', 'policiesOverNone'],
  targets: [{ metric: 'policiesOverNone', relation: '≤', limit: { value: 1.02 } }],
};
