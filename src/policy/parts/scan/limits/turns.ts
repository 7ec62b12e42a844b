/** A fair queue: whoever came first goes first, and only so many go at a time. */

interface Waiting {
  places: number;
  go: () => void;
}

export class Turns {
  readonly #places: number;
  #free: number;
  readonly #queue: Waiting[] = [];

  constructor(places: number) {
    this.#places = places;
    this.#free = places;
  }

  /** Waits for one place. @throws the reason of `signal`, when it aborts */
  take(signal: AbortSignal): Promise<Disposable> {
    return this.#take(1, signal);
  }

  /** Waits for all places: nobody else has one meanwhile. @throws the reason of `signal`, when it aborts */
  takeAll(signal: AbortSignal): Promise<Disposable> {
    return this.#take(this.#places, signal);
  }

  async #take(places: number, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#queue.length > 0 || this.#free < places) await this.#wait(places, signal);
    else this.#free -= places;
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (isOver) return;
        isOver = true;
        this.#free += places;
        this.#next();
      },
    };
  }

  #wait(places: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#queue.splice(this.#queue.indexOf(waiting), 1);
        // Whoever stood behind a large one may fit.
        this.#next();
        reject(signal.reason as Error);
      };
      const waiting: Waiting = {
        places,
        go: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#queue.push(waiting);
    });
  }

  #next(): void {
    for (
      let first = this.#queue[0];
      first !== undefined && first.places <= this.#free;
      first = this.#queue[0]
    ) {
      this.#queue.shift();
      this.#free -= first.places;
      first.go();
    }
  }
}
