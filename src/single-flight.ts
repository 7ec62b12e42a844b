/** Equal work that is asked for at the same time is done once; everybody gets the one outcome, error or not. */
export class SingleFlight<T> {
  readonly #runningByKey = new Map<string, Promise<T>>();

  /** @returns `joined`: the work was already running for somebody else */
  run(key: string, work: () => Promise<T>): { result: Promise<T>; joined: boolean } {
    const running = this.#runningByKey.get(key);
    if (running !== undefined) return { result: running, joined: true };
    // Registered before the first await: a second caller in the same tick must find it.
    const result = work().finally(() => this.#runningByKey.delete(key));
    this.#runningByKey.set(key, result);
    return { result, joined: false };
  }
}
