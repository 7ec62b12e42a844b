/** Agrees by Valkey, or Redis from version 7 on. */
import type { Coordinator } from './coordinator.ts';
import { valkeyAdvice } from './valkey-advice.ts';
import { ValkeyConnection, type ValkeySettings } from './valkey-connection.ts';
import { ValkeyJournal } from './valkey-journal.ts';
import { ValkeyLeases } from './valkey-leases.ts';
import { ValkeyMembers } from './valkey-members.ts';
import { ValkeyNotes } from './valkey-notes.ts';

/** Connects in the background, again and again. */
export function valkeyCoordinator(settings: ValkeySettings): Coordinator {
  const connection = new ValkeyConnection(settings);
  return {
    leases: new ValkeyLeases(connection),
    notes: new ValkeyNotes(connection),
    members: new ValkeyMembers(connection),
    journal: new ValkeyJournal(connection),
    advice: async () => valkeyAdvice(await connection.info()),
    close: () => connection.close(),
  };
}
