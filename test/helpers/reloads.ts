/** Reloads a changed configuration again and again, beside clients who pull. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { stringify } from 'yaml';
import { digestOf } from '../../src/oci/digest.ts';
import { cleanUp } from './cleanup.ts';
import { noise } from './images.ts';
import { type RealMirror, startRealMirror } from './real-mirror.ts';
import { ScriptedUpstream } from './scripted-upstream.ts';
import { tempDir } from './temp-dir.ts';

const CLIENTS = 50;
const BLOBS = 40;
const MEASURED_AFTER = 10;
const MIB = 1024 * 1024;

interface Used {
  descriptors: number;
  residentBytes: number;
  /** The most that it ever was. */
  peakBytes: number;
}

/**
 * Asserts that no pull fails because of a reload. Three configurations take turns: one has another upstream, one has other
 * settings of the upstream that is pulled from, which replaces its client, and one has mistakes.
 *
 * @param options.warmUpPulls so many come first: the memory of a process grows for some time, whatever it does
 * @returns what the process used after the tenth reload and after the last one, with no client left
 */
export async function reloadAgainAndAgain(
  t: TestContext,
  { reloads, warmUpPulls }: { reloads: number; warmUpPulls: number },
): Promise<{ early: Used; late: Used; pulls: number }> {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', '1', { seed: 'app' });
  const blobs = Array.from({ length: BLOBS }, (_, at) => noise(200_000, `layer ${at}`));
  for (const blob of blobs) upstream.addContent(blob);
  const directory = await tempDir(t);
  const file = join(directory, 'millpond.yaml');
  const settings = (variant: number) => ({
    server: { listen: '127.0.0.1:0' },
    operations: { listen: '127.0.0.1:0' },
    // Small, so that most pulls of blobs are cold.
    cache: { directory: join(directory, 'data'), maxSize: '2MiB' },
    log: { access: 'none', level: 'error' },
    watchConfig: false,
    defaultUpstream: 'kept.test',
    upstreams: {
      'kept.test': { url: upstream.url, maxConnections: 60 + (variant % 2) },
      ...(variant % 3 === 0 ? { 'other.test': { url: upstream.url } } : {}),
    },
  });
  const mirror = await startRealMirror(t, directory, { ...settings(0), log: { access: 'none' } });
  const write = async (text: string) => {
    await writeFile(`${file}.new`, text);
    await rename(`${file}.new`, file);
  };
  const reload = async (at: number) => {
    const isBad = at % 5 === 4;
    await write(isBad ? 'upstreams: { kept.test: { tagTTL: 1m } }\n' : stringify(settings(at)));
    const reply = await request(`http://127.0.0.1:${mirror.operationsPort}/api/reload`, { method: 'POST' });
    const text = await reply.body.text();
    assert.equal(reply.statusCode, isBad ? 422 : 200, text);
  };

  const load = new Load(t, mirror, blobs);
  await load.run(async () => {
    while (load.pulls < warmUpPulls) await setTimeout(20);
    for (let at = 1; at <= MEASURED_AFTER; at += 1) await reload(at);
  });
  const early = await settled(mirror, Number.POSITIVE_INFINITY);
  await load.run(async () => {
    for (let at = MEASURED_AFTER + 1; at <= reloads; at += 1) await reload(at);
  });
  const late = await settled(mirror, early.descriptors);
  return { early, late, pulls: load.pulls };
}

class Load {
  pulls = 0;
  readonly #t: TestContext;
  readonly #url: string;
  readonly #blobs: readonly Buffer[];

  constructor(t: TestContext, { port }: RealMirror, blobs: readonly Buffer[]) {
    this.#t = t;
    this.#url = `http://127.0.0.1:${port}`;
    this.#blobs = blobs;
  }

  /** Clients pull as long as `work` runs. @throws the first pull that was wrong */
  async run(work: () => Promise<void>): Promise<void> {
    const agent = new Agent({ connections: CLIENTS });
    cleanUp(this.#t, () => agent.destroy());
    const state = { running: true };
    const clients = Array.from({ length: CLIENTS }, async (_, client) => {
      for (let at = client; state.running; at += 1) await this.#pull(agent, at);
    });
    const worked = work().finally(() => {
      state.running = false;
    });
    await Promise.all([worked, ...clients]);
    await agent.close();
  }

  async #pull(agent: Agent, at: number): Promise<void> {
    const blob = this.#blobs[at % this.#blobs.length];
    assert.ok(blob !== undefined);
    const host = at % 7 === 0 ? 'other.test' : 'kept.test';
    const what = at % 3 === 0 ? 'manifests/1' : `blobs/${digestOf(blob)}`;
    const reply = await request(`${this.#url}/v2/${host}/org/app/${what}`, { dispatcher: agent });
    const bytes = Buffer.from(await reply.body.arrayBuffer());
    this.pulls += 1;
    if (host === 'other.test' && reply.statusCode === 404) {
      assert.match(bytes.toString(), /NAME_UNKNOWN/); // it is not in the configuration now
      return;
    }
    assert.equal(reply.statusCode, 200, bytes.toString().slice(0, 300));
    if (what.startsWith('blobs/')) assert.ok(bytes.equals(blob), 'wrong bytes');
  }
}

/** Waits until connections that are not used any more have ended. The test's timeout ends a wait for a leak. */
async function settled({ process: { pid } }: RealMirror, most: number): Promise<Used> {
  let before = Number.NaN;
  for (;;) {
    const descriptors = readdirSync(`/proc/${pid}/fd`).length;
    if (descriptors === before && descriptors <= most)
      return {
        descriptors,
        residentBytes: bytesIn(pid, 'VmRSS'),
        peakBytes: bytesIn(pid, 'VmHWM'),
      };
    before = descriptors;
    await setTimeout(2_000); // connections to upstream are kept for some seconds
  }
}

function bytesIn(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const [, kiB] = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status) ?? [];
  return Number(kiB) * 1024;
}

/** For the report of a run. */
export function inMiB({ residentBytes, peakBytes, descriptors }: Used): string {
  const [resident, peak] = [residentBytes, peakBytes].map((bytes) => Math.round(bytes / MIB));
  return `${resident} MiB (at most ${peak}), ${descriptors} descriptors`;
}
