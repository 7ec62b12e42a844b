import type { RealMirror } from './real-mirror.ts';
import { until } from './real-processes.ts';

/** Resolves when all that a node of a fleet has fetched is in the object store. */
export async function uploaded({ operationsPort, process }: RealMirror): Promise<void> {
  await until('the uploads', process, async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${operationsPort}/metrics`)).text();
    if (!metrics.includes('\nmillpond_ingests_in_progress 0\n')) return false; // replies end before they are stored
    const reply = await fetch(`http://127.0.0.1:${operationsPort}/api/status`);
    const { fleet } = (await reply.json()) as { fleet: { objects: { up: boolean; waiting: number } } };
    return fleet.objects.up && fleet.objects.waiting === 0;
  });
}
