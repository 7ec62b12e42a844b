/** Nodes of a fleet in this process: each has a disk of its own, and all share a bucket and an upstream. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FleetSecret } from '../../src/fleet/records/fleet-secret.ts';
import { writeRecord } from '../../src/fleet/records/signed-record.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';
import { BUCKET_ENVIRONMENT, ScriptedBucket } from './scripted-bucket.ts';
import { ScriptedUpstream } from './scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from './start-mirror.ts';
import { tempDir } from './temp-dir.ts';

export const SECRET = 'a secret that all the nodes of this fleet share';

export interface FleetNode extends TestMirror {
  /** Resolves when nothing waits to be uploaded. */
  uploaded(): Promise<void>;
}

/** Ends as `work` does, and moves time until then. @param step called again and again */
export async function moving<T>(work: Promise<T>, step: () => void): Promise<T> {
  const state = { isOver: false };
  const end = () => {
    state.isOver = true;
  };
  void work.then(end, end);
  while (!state.isOver) {
    step();
    await setImmediate();
  }
  return work;
}

/** Moves time until all nodes know each other. One that has just started may not have its connection yet. */
export async function introduce(nodes: readonly FleetNode[]): Promise<void> {
  const known = await Promise.all(nodes.map((node) => node.metric('millpond_fleet_members')));
  if (known.every((count) => count === nodes.length)) return;
  for (const node of nodes) {
    const beats = () => node.metric('millpond_fleet_request_duration_seconds_count', { operation: 'beat' });
    const before = await beats();
    node.clock.advance(5_000);
    while ((await beats()) === before);
  }
  await introduce(nodes);
}

export class TestFleet {
  readonly bucket: ScriptedBucket;
  readonly upstream: ScriptedUpstream;
  readonly #t: TestContext;

  private constructor(t: TestContext, bucket: ScriptedBucket, upstream: ScriptedUpstream) {
    this.#t = t;
    this.bucket = bucket;
    this.upstream = upstream;
  }

  static async start(t: TestContext): Promise<TestFleet> {
    return new TestFleet(t, await ScriptedBucket.start(t), await ScriptedUpstream.start(t));
  }

  /** What a node would write into the object `name`. */
  async sign(name: string, value: object): Promise<Buffer> {
    const file = join(await tempDir(this.#t), 'secret');
    await writeFile(file, SECRET, { mode: 0o600 });
    const logger = createLogger({ level: 'silent', destination: { write: () => undefined }, now: () => 0 });
    return writeRecord(await FleetSecret.open(file, { clock: new FakeClock(), logger }), name, value);
  }

  /** Starts a node. Time stands still for it: no deadline ends by itself. */
  async node(
    options: Partial<MirrorOptions> & { secret?: string; moreOfFleet?: Record<string, unknown> } = {},
  ): Promise<FleetNode> {
    const { secret = SECRET, moreOfFleet = {}, ...others } = options;
    const directory = options.directory ?? (await tempDir(this.#t));
    const secretFile = join(directory, 'fleet-secret');
    await writeFile(secretFile, `${secret}\n`, { mode: 0o600 });
    const clock = options.clock ?? new FakeClock();
    clock.impatient = false;
    const mirror = await startMirror(this.#t, {
      upstreams: { 'docker.io': this.upstream.url },
      ...{ fleet: { ...this.bucket.config(secretFile), ...moreOfFleet }, environment: BUCKET_ENVIRONMENT },
      ...{ ...others, directory, clock },
    });
    cleanUp(this.#t, () => {
      clock.impatient = true;
      clock.advance(60_000); // for whatever still waits for an engine
    });
    const waiting = async () => {
      const reply = await fetch(`${mirror.operationsUrl}/api/status`);
      const { fleet } = (await reply.json()) as { fleet: { objects: { waiting: number } } };
      return fleet.objects.waiting;
    };
    return {
      ...mirror,
      uploaded: async () => {
        await mirror.idle();
        while ((await waiting()) > 0);
      },
    };
  }
}
