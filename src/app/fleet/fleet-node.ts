/** What the fleet may do to this node: remove an image, and seal it. */
import type { Fleet, FleetPart } from '../../fleet/fleet.ts';
import { ImageRemoval } from '../../mirror/manifests/image-removal.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Seal } from '../../upstream/client/seal.ts';

export type SharedStorage = Pick<FleetPart, 'catalog' | 'cache' | 'index'>;

/** @param fleet whose index this storage has */
export function fleetNode(fleet: Fleet, storage: SharedStorage, seal: Seal, logger: Logger): FleetPart {
  const { catalog, cache, index } = storage;
  // Asks nobody: what others know of an image is no reason to keep it.
  const removal = new ImageRemoval({ catalog, index: fleet.ownRecords ?? index });
  return {
    ...{ catalog, cache, index },
    removeHere: (key, reference, elsewhere) => removal.remove(key, reference, elsewhere),
    onSealed: async (sealed) => {
      try {
        await (sealed ? seal.apply('fleet') : seal.lift('fleet'));
        logger.warn(
          { sealed },
          sealed ? 'sealed by the fleet: no upstream is asked' : 'unsealed by the fleet',
        );
      } catch (error) {
        logger.error({ err: error }, 'the fleet was unsealed, and this node could not be');
      }
    },
  };
}
