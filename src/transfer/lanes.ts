/**
 * Runs `step` for every item, at most `lanes` of them at the same time. After a failure it starts no more steps, and
 * waits for those that are running: they may hold files and reservations.
 *
 * @throws the first failure
 */
export async function inLanes<T>(
  items: Iterable<T>,
  lanes: number,
  step: (item: T) => Promise<void>,
): Promise<void> {
  const left = [...items].values();
  const failures: unknown[] = [];
  const lane = async () => {
    for (const item of left) {
      if (failures.length > 0) return;
      await step(item).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  if (failures.length > 0) throw failures[0];
}
