/** Checks what the mirror needs: its disk, the clock, and each step of the way to each upstream. Changes nothing. */
import type { Clock } from '../../clock.ts';
import type { Config } from '../../config/schema.ts';
import type { Environment } from '../../config/secrets.ts';
import { createLogger } from '../../telemetry/log.ts';
import { Metrics } from '../../telemetry/metrics.ts';
import { checkClock } from './checks/clock.ts';
import { DeadlineError, within } from './checks/deadline.ts';
import { checkDisk } from './checks/disk.ts';
import { CheckFailure, type CheckResult, type Finding } from './checks/result.ts';
import { examineUpstream } from './upstream.ts';

export type { CheckResult, Outcome } from './checks/result.ts';

/** Milliseconds, for everything: whoever runs the command wants to know within half a minute. */
const WHOLE_MS = 25_000;
const DISK_MS = 8_000;

export interface DiagnoseOptions {
  environment: Environment;
  clock: Clock;
  version: string;
  /** Number of the user who runs the command, where the system has such numbers. */
  user: number | undefined;
}

/** Gives the results in a fixed order, each as soon as those before it are known. Ends within 30 s. */
export async function* diagnose(config: Config, options: DiagnoseOptions): AsyncGenerator<CheckResult> {
  const { clock, environment, version, user } = options;
  using end = new Ending(clock, WHOLE_MS);
  const { signal } = end;
  const examined = config.sealed
    ? []
    : [...config.upstreams].map(([name, upstream]) =>
        examineUpstream(name, upstream, {
          ...{ environment, clock, signal },
          metrics: new Metrics({ version, processMetrics: false }),
          logger: createLogger({ level: 'silent', destination: { write: () => undefined }, now: () => 0 }),
          identity: { userAgent: `millpond/${version}`, via: '1.1 millpond-doctor' },
        }),
      );
  const all = Promise.all(examined);
  all.catch(() => undefined); // each is awaited below
  yield { check: 'disk', ...(await disk(config, { clock, signal, user })) };
  for (const one of examined) yield* (await one).results;
  if (config.sealed) {
    const message = 'not checked, because the configuration says sealed: true';
    yield { check: 'upstreams', outcome: 'skipped', message };
  }
  yield { check: 'clock', ...checkClock((await all).flatMap(({ skews }) => skews)) };
}

async function disk(
  { cache }: Config,
  { user, ...time }: { clock: Clock; signal: AbortSignal; user: number | undefined },
): Promise<Finding> {
  try {
    return await within(time, DISK_MS, () => checkDisk(cache, user));
  } catch (error) {
    if (error instanceof CheckFailure)
      return { outcome: 'failed', message: error.message, advice: error.advice };
    const why =
      error instanceof DeadlineError
        ? `does not answer: ${error.message}`
        : `cannot be looked at: ${String(error)}`;
    const advice = 'check the drive that it is on, or choose another cache.directory';
    return { outcome: 'failed', message: `${cache.directory} ${why}`, advice };
  }
}

/** A signal that aborts after a time by the clock. */
class Ending implements Disposable {
  readonly #controller = new AbortController();
  readonly #cancel = new AbortController();

  constructor(clock: Clock, ms: number) {
    clock.sleep(ms, this.#cancel.signal).then(
      () => this.#controller.abort(new DeadlineError(ms)),
      () => undefined, // cancelled: all has ended before
    );
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    this.#cancel.abort();
  }
}
