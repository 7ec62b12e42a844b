/** Fetches the images that the configuration lists: at the start, and then regularly. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { WarmStatus } from '../http/operations/status.ts';
import type { Warmer } from '../transfer/warmer.ts';

type WarmList = Config['warm'][number];

interface Scheduled {
  list: WarmList;
  timer: Disposable;
  last: WarmStatus['last'];
}

export class WarmSchedule implements Disposable {
  readonly #warmer: Warmer;
  readonly #clock: Clock;
  #scheduled: Scheduled[] = [];

  constructor(warmer: Warmer, clock: Clock) {
    this.#warmer = warmer;
    this.#clock = clock;
  }

  get status(): WarmStatus[] {
    return this.#scheduled.map(({ list, last }) => ({ images: list.images, last }));
  }

  /** A list that was there before keeps its rhythm. A new one begins at once. What is being fetched is fetched to its end. */
  use(lists: Config['warm']): void {
    const before = this.#scheduled;
    this.#scheduled = lists.map(
      (list) => before.find((each) => isDeepStrictEqual(each.list, list)) ?? this.#start(list),
    );
    for (const each of before) if (!this.#scheduled.includes(each)) each.timer[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const { timer } of this.#scheduled) timer[Symbol.dispose]();
  }

  #start(list: WarmList): Scheduled {
    const { every, ...images } = list;
    const request = { ...images, referrers: true };
    const run = async () => {
      const done = await this.#warmer.runInBackground(request);
      if (done !== undefined) scheduled.last = { at: new Date(this.#clock.now()).toISOString(), ...done };
    };
    const timer = this.#clock.every(every, () => void run());
    const scheduled: Scheduled = { list, timer, last: null };
    void run();
    return scheduled;
  }
}
