/** What long work tells while it runs. */

/** Where work puts its events. */
export interface EventSink<E> {
  push(event: E): void;
  /** Replaces the event of this key that nobody has read yet. */
  progress(key: string, event: E): void;
}

/** Bytes between two events of progress. */
export const PROGRESS_STEP_BYTES = 4 * 1024 * 1024;

/**
 * The events of `work`, which runs by itself, however slowly they are read; at the end its error, if it has one. To
 * stop reading waits for the work: whoever wants it to end must tell it so.
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
