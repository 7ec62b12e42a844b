/** Takes a step for each item, some at a time; after one has failed no more are begun. @throws what failed first */
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
