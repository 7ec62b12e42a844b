/**
 * Every policy in every mode, with good and with bad evidence, on what is cached and what is not, by tag and digest of an
 * index, a platform manifest and a single manifest, by GET and HEAD: what enforces and finds it bad refuses, and nothing
 * else does.
 */
import assert from 'node:assert/strict';
import { chmod, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import type { TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { ecKeys, pemOf } from '../helpers/signatures/cosign-signatures.ts';
import { signUnderTag } from '../helpers/signatures/upstream-signatures.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { pullImage } from '../helpers/transfers.ts';

const APP = '/v2/org/app';
const keys = ecKeys();

interface Setting {
  directory: string;
  upstream: ScriptedUpstream;
  clock: FakeClock;
  index: TestImage;
  single: TestImage;
}

interface Kind {
  /** An index comes in as a list, and each of its images is decided by itself. */
  letsIndexesIn?: true;
  /** Makes it one that the policy lets in, or does not. */
  prepare: (setting: Setting, isGood: boolean) => Promise<Record<string, unknown>>;
  /** Called when the mirror runs, before the first request that counts. */
  ripen?: (setting: Setting, mirror: TestMirror, isGood: boolean) => Promise<void>;
}

const KINDS: Record<string, Kind> = {
  deny: {
    prepare: async ({ directory, index, single }, isGood) => {
      const file = join(directory, 'denied.txt');
      const all = [index.top, ...index.manifests, single.top].map(({ digest }) => digest);
      await writeFile(file, isGood ? '' : all.join('\n'));
      return { deny: { digests: [file] } };
    },
  },
  minimumAge: {
    prepare: async () => ({ minimumAge: '72h' }),
    ripen: async ({ clock }, mirror, isGood) => {
      if (!isGood) return;
      for (const tag of ['1', '2']) await mirror.get(`${APP}/manifests/${tag}`);
      clock.advance(72 * 3_600_000);
    },
  },
  signature: {
    prepare: async ({ directory, upstream, index, single }, isGood) => {
      const file = join(directory, 'cosign.pub');
      await writeFile(file, pemOf(keys.publicKey));
      const by = isGood ? keys : ecKeys();
      for (const { top } of [index, single]) signUnderTag(upstream, top.digest, { by });
      return { signature: { cosign: { keys: [file] } } };
    },
  },
  scan: {
    letsIndexesIn: true,
    prepare: async ({ directory }, isGood) => {
      const program = join(directory, 'trivy');
      const fake = resolve(import.meta.dirname, '../helpers/fake-trivy.ts');
      const found = { VulnerabilityID: 'CVE-2024-9999', PkgName: 'openssl', Severity: 'CRITICAL' };
      const result = { Target: 'app', Class: 'os-pkgs', Type: 'alpine', Packages: [{ Name: 'openssl' }] };
      const results = JSON.stringify([{ ...result, Vulnerabilities: isGood ? [] : [found] }]);
      await writeFile(
        program,
        `#!/bin/sh\nFAKE_RESULTS='${results}' exec '${process.execPath}' '${fake}' "$@"\n`,
      );
      await chmod(program, 0o755);
      return { scan: { trivy: program, failOn: 'critical' } };
    },
  },
};

async function setUp(t: TestContext): Promise<Setting> {
  const upstream = await ScriptedUpstream.start(t);
  const clock = new FakeClock();
  clock.impatient = false;
  const index = upstream.addImage('org/app', '1', { platforms: ['amd64', 'arm64'], layers: [2000] });
  const single = upstream.addImage('org/app', '2', { seed: 'single', layers: [2000] });
  return { directory: await tempDir(t), upstream, clock, index, single };
}

for (const [kind, { prepare, ripen, letsIndexesIn }] of Object.entries(KINDS)) {
  for (const mode of ['enforce', 'audit']) {
    for (const evidence of ['good', 'bad']) {
      for (const state of ['cold', 'cached']) {
        const isRefused = mode === 'enforce' && evidence === 'bad';
        const what = isRefused ? 'is refused' : 'comes in';
        // What is cached when a policy of this kind begins counts as old enough.
        const isOldEnough = kind === 'minimumAge' && state === 'cached';
        test(`${kind}, ${mode}, ${evidence} evidence, ${state}: ${isOldEnough ? 'comes in' : what}`, async (t) => {
          const setting = await setUp(t);
          const { directory, upstream, clock, index, single } = setting;
          const conditions = await prepare(setting, evidence === 'good');
          const environment = { PATH: process.env['PATH'] ?? '' };
          const common = { upstreams: { 'ghcr.io': upstream.url }, directory, clock, environment };
          if (state === 'cached') {
            const plain = await startMirror(t, common);
            for (const tag of ['1', '2']) await pullImage(plain, 'org/app', tag);
            await plain.app.close();
          }
          const mirror = await startMirror(t, {
            ...common,
            policies: [{ name: 'the-policy', mode, ...conditions }],
          });
          await ripen?.(setting, mirror, evidence === 'good');
          const expected = isRefused && !isOldEnough ? 403 : 200;
          const platform = index.manifests[0]?.digest;
          // The index first: only then is it known what it covers, and what is denied with it.
          const references = ['1', index.top.digest, platform, '2', single.top.digest];
          for (const reference of references) {
            const isIndex = reference === '1' || reference === index.top.digest;
            for (const method of ['HEAD', 'GET'])
              await assertStatus(
                mirror,
                method,
                `${APP}/manifests/${reference}`,
                letsIndexesIn === true && isIndex ? 200 : expected,
              );
          }
          for (const layer of [layerOf(index), layerOf(single)])
            for (const method of ['HEAD', 'GET'])
              await assertStatus(mirror, method, `${APP}/blobs/${layer}`, expected);
        });
      }
    }
  }
}

function layerOf({ blobs }: TestImage): Digest {
  return digestOf(blobs[1] ?? Buffer.alloc(0));
}

async function assertStatus(
  mirror: TestMirror,
  method: string,
  path: string,
  expected: number,
): Promise<void> {
  const { status, body } = await mirror.send(method, path);
  assert.equal(status, expected, `${method} ${path}: ${body.toString().slice(0, 200)}`);
}
