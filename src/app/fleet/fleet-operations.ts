/** What operators do to the whole fleet. */
import { EngineError } from '../../fleet/engines/errors.ts';
import type { Fleet } from '../../fleet/fleet.ts';
import type { FleetOperations } from '../../http/operations/api.ts';
import { ApiError } from '../../http/operations/errors.ts';

export function fleetOperations(fleet: Fleet): FleetOperations {
  return {
    remove: (key, reference) => forAll(() => fleet.remove(key, reference)),
    setSealed: (sealed) => forAll(() => fleet.setSealed(sealed)),
  };
}

/** Does it for all nodes, or not at all. */
async function forAll<T>(step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    throw new ApiError(503, `the fleet cannot be told now, so that nothing was changed: ${error.message}`);
  }
}
