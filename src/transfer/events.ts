/** Turns what long work reports into a stream of events that a client reads at its own speed. */

/** Takes the events of the work. */
export interface EventSink<E> {
  push(event: E): void;
  /** Replaces the last event of this key if it has not been read yet: a slow reader gets the latest state. */
  progress(key: string, event: E): void;
}

/** Bytes between two progress events. */
export const PROGRESS_STEP_BYTES = 4 * 1024 * 1024;

/**
 * Starts `work` with the first read and gives its events. A slow reader does not slow the work down. A reader that
 * stops early waits until the work has ended: the caller has to stop the work by its own means.
 *
 * @throws what `work` throws, after all events have been read
 */
export async function* eventsOf<E>(work: (sink: EventSink<E>) => Promise<void>): AsyncGenerator<E, void> {
  const pending = new Map<unknown, E>();
  let wake = (): void => undefined;
  let ended = false;
  const put = (key: unknown, event: E): void => {
    pending.set(key, event);
    wake();
  };
  const running = work({ push: (event) => put(Symbol('event'), event), progress: put }).finally(() => {
    ended = true;
    wake();
  });
  const settled = Promise.allSettled([running]);
  try {
    for (;;) {
      for (const [key, event] of pending) {
        pending.delete(key);
        yield event;
      }
      if (ended && pending.size === 0) break;
      if (pending.size === 0) await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    await settled;
  }
  await running;
}
