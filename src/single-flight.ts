/** Does equal work once when several callers ask for it at the same time. All get the same result or error. */
export class SingleFlight<T> {
  readonly #runningByKey = new Map<string, Promise<T>>();

  /** @returns `joined`: the work was already running for another caller */
  run(key: string, work: () => Promise<T>): { result: Promise<T>; joined: boolean } {
    const running = this.#runningByKey.get(key);
    if (running !== undefined) return { result: running, joined: true };
    // Registers the work before the first await, so that a second caller in the same tick finds it.
    const result = work().finally(() => this.#runningByKey.delete(key));
    this.#runningByKey.set(key, result);
    return { result, joined: false };
  }
}
