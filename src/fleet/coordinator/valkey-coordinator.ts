/** Agrees by Valkey, or Redis from version 7 on. */
import type { Coordinator } from './coordinator.ts';
import { ValkeyConnection, type ValkeySettings } from './valkey-connection.ts';
import { ValkeyLeases } from './valkey-leases.ts';
import { ValkeyLimits } from './valkey-limits.ts';
import { ValkeyMembers } from './valkey-members.ts';
import { ValkeyNotes } from './valkey-notes.ts';

/** Connects in the background, again and again. */
export function valkeyCoordinator(settings: ValkeySettings): Coordinator {
  const connection = new ValkeyConnection(settings);
  return {
    leases: new ValkeyLeases(connection),
    notes: new ValkeyNotes(connection),
    members: new ValkeyMembers(connection),
    limits: new ValkeyLimits(connection),
    close: () => connection.close(),
  };
}
