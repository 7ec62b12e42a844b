/** Fetches the images that the configuration lists: at the start, and then regularly. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { Warmer } from '../transfer/warmer.ts';

type WarmList = Config['warm'][number];

export class WarmSchedule implements Disposable {
  readonly #warmer: Warmer;
  readonly #clock: Clock;
  #running: { list: WarmList; timer: Disposable }[] = [];

  constructor(warmer: Warmer, clock: Clock) {
    this.#warmer = warmer;
    this.#clock = clock;
  }

  /** A list that was there before keeps its rhythm. A new one begins at once. What is being fetched is fetched to its end. */
  use(lists: Config['warm']): void {
    const before = this.#running;
    this.#running = lists.map((list) => {
      const old = before.find((each) => isDeepStrictEqual(each.list, list));
      return old ?? { list, timer: this.#start(list) };
    });
    for (const each of before) if (!this.#running.includes(each)) each.timer[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const { timer } of this.#running) timer[Symbol.dispose]();
  }

  #start({ every, ...images }: WarmList): Disposable {
    const request = { ...images, referrers: true };
    this.#warmer.runInBackground(request);
    return this.#clock.every(every, () => this.#warmer.runInBackground(request));
  }
}
