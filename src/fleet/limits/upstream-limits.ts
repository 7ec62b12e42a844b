/**
 * The limits of one upstream, for all nodes that it counts as one: those with the same `fleet.egress`, or, without it, those
 * whose requests it says it counts to the same source. It is the same upstream if all nodes call it the same, which
 * includes who logs in there.
 *
 * What is told is signed: whoever could forge it could keep all nodes from asking upstream.
 */
import * as z from 'zod';
import type { Clock } from '../../clock.ts';
import type { Metrics, RequestKind } from '../../telemetry/metrics.ts';
import type { LearnedLimits, SharedLimits } from '../../upstream/limits/shared-limits.ts';
import type { CoordinatedLimits } from '../coordinator/coordinator.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { readRecord, writeRecord } from '../records/signed-record.ts';

export interface UpstreamLimitsContext {
  limits: CoordinatedLimits;
  engine: Engine;
  secret: FleetSecret;
  /** The coordinator's time; milliseconds since the epoch. */
  now: () => number;
  upstreamKeyOf: (upstream: string) => Promise<string | undefined>;
  /** Name of the way out of this node; undefined: upstream says whom it counts. */
  egress: string | undefined;
  clock: Clock;
  metrics: Metrics;
  /** Aborts when this node leaves. */
  signal: AbortSignal;
}

const KINDS: readonly RequestKind[] = ['manifest', 'blob', 'tags', 'referrers'];
const COUNT = 'count';
const COMMAND_MS = 250;
/** Layers come in dozens: what was learned counts for all that are asked for so soon after it. */
const BLOBS_LEARN_AGAIN_MS = 1_000;
const COUNT_AGAIN_MS = 1_000;
/** A record counts only if it was signed when it was kept: one that ended long ago cannot be kept once more. */
const SIGNED_WITHIN_MS = 60_000;
const LONGEST_MS = 24 * 3_600_000;

const duration = z.number().min(0).max(LONGEST_MS);
const pauseRecord = z.object({ signedAt: z.number(), forMs: duration });
const countRecord = z.object({ signedAt: z.number(), remaining: z.int().min(0), windowMs: duration });

const NOTHING: LearnedLimits = { pauses: new Map() };

export class UpstreamLimits implements SharedLimits {
  readonly #upstream: string;
  readonly #context: UpstreamLimitsContext;
  #last: { at: number; learned: Promise<LearnedLimits> } | undefined;
  /** What is told next. */
  #count: { remaining: number; windowMs: number; source: string | undefined } | undefined;
  #isTelling = false;

  /** @param upstream its name here */
  constructor(upstream: string, context: UpstreamLimitsContext) {
    this.#upstream = upstream;
    this.#context = context;
  }

  /** Asks for each request but those of blobs, which cost the coordinator a command a second. */
  learn(kind: RequestKind, source: string | undefined): Promise<LearnedLimits> {
    const now = this.#context.clock.now();
    const isRecent = this.#last !== undefined && Math.abs(now - this.#last.at) < BLOBS_LEARN_AGAIN_MS;
    if (this.#last !== undefined && isRecent && kind === 'blob') return this.#last.learned;
    const learned = this.#learn(source);
    this.#last = { at: now, learned };
    return learned;
  }

  async tellPause(kind: RequestKind, forMs: number, source: string | undefined): Promise<void> {
    await this.#tell(kind, source, { forMs }, { forMs, unlessLonger: true });
  }

  tellCount(count: { remaining: number; windowMs: number }, source: string | undefined): void {
    this.#count = { ...count, source };
    if (!this.#isTelling) void this.#tellCounts();
  }

  /** The latest count replaces all others: at most one a second is told. */
  async #tellCounts(): Promise<void> {
    const { clock, signal } = this.#context;
    this.#isTelling = true;
    while (this.#count !== undefined && !signal.aborted) {
      const { source, ...count } = this.#count;
      this.#count = undefined;
      await this.#tell(COUNT, source, count, { forMs: count.windowMs, unlessLonger: false });
      await clock.sleep(COUNT_AGAIN_MS, signal).catch(() => undefined);
    }
    this.#isTelling = false;
  }

  async #learn(source: string | undefined): Promise<LearnedLimits> {
    const { limits, engine, clock } = this.#context;
    const group = await this.#group(source);
    if (group === undefined) return NOTHING;
    const found = await this.#tolerate(() => engine.ask('limits', COMMAND_MS, () => limits.all(group)));
    if (found === undefined) return NOTHING;
    const pauses = new Map<RequestKind, number>();
    let count: LearnedLimits['count'];
    for (const { name, text, at } of found.kept) {
      const ageMs = Math.max(0, found.now - at);
      const kind = KINDS.find((one) => one === name);
      const pause = kind && (await this.#read(group, name, { text, at }, pauseRecord));
      if (kind !== undefined && pause !== undefined && pause.forMs > ageMs)
        pauses.set(kind, clock.now() + pause.forMs - ageMs);
      if (name !== COUNT) continue;
      const counted = await this.#read(group, name, { text, at }, countRecord);
      if (counted !== undefined)
        count = { remaining: counted.remaining, windowMs: counted.windowMs, at: clock.now() - ageMs };
    }
    return count === undefined ? { pauses } : { pauses, count };
  }

  async #read<T extends { signedAt: number }>(
    group: string,
    name: string,
    { text, at }: { text: string; at: number },
    schema: z.ZodType<T>,
  ): Promise<T | undefined> {
    const { secret, metrics } = this.#context;
    const record = await readRecord(secret, recordName(group, name), text, schema);
    if (record !== undefined && Math.abs(record.signedAt - at) <= SIGNED_WITHIN_MS) return record;
    metrics.fleetRecordsRefused.inc({ engine: 'coordinator' });
    return undefined;
  }

  async #tell(
    name: string,
    source: string | undefined,
    said: object,
    options: { forMs: number; unlessLonger: boolean },
  ): Promise<void> {
    const { limits, engine, secret, now } = this.#context;
    const group = await this.#group(source);
    if (group === undefined) return;
    const signed = { ...said, signedAt: Math.round(now()) };
    const text = (await writeRecord(secret, recordName(group, name), signed)).toString();
    await this.#tolerate(() =>
      engine.ask('limit', COMMAND_MS, () => limits.keep(group, name, text, options)),
    );
  }

  /** Undefined: it is not known who logs in, so that nobody counts as one with this node. */
  async #group(source: string | undefined): Promise<string | undefined> {
    const { upstreamKeyOf, egress } = this.#context;
    const key = await upstreamKeyOf(this.#upstream);
    if (key === undefined) return undefined;
    return egress === undefined ? `${key} source ${source ?? ''}` : `${key} egress ${egress}`;
  }

  /** @returns undefined if the coordinator fails: each node then goes by what it is told itself */
  async #tolerate<T>(ask: () => Promise<T>): Promise<T | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof EngineError) return undefined;
      throw error;
    }
  }
}

function recordName(group: string, name: string): string {
  return `limits ${group} ${name}`;
}
