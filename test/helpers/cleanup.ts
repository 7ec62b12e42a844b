/** What a test sets up is taken down in reverse, all of it, even when a step fails. */
import type { TestContext } from 'node:test';

const stepsByTest = new WeakMap<object, (() => unknown)[]>();

/** Runs `step` when the test has ended. (Node's own hooks run first to last, and stop at the first that fails.) */
export function cleanUp(t: Pick<TestContext, 'after'>, step: () => unknown): void {
  const known = stepsByTest.get(t);
  if (known !== undefined) {
    known.push(step);
    return;
  }
  const steps = [step];
  stepsByTest.set(t, steps);
  t.after(async () => {
    const errors: unknown[] = [];
    for (const one of steps.toReversed()) {
      try {
        await one();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0)
      throw new AggregateError(errors, `clean-up failed: ${errors.map(String).join('; ')}`);
  });
}
