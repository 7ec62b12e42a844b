/**
 * `fleet.json` below the prefix: which format the records have, and, by its signature, whose they are. A node that may
 * not read what is there must not write there either.
 */
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { EngineError } from './engines/errors.ts';
import { FLEET_FILE } from './objects/names.ts';
import type { ObjectStore } from './objects/object-store.ts';
import type { FleetSecret } from './records/fleet-secret.ts';
import { fleetRecord, readRecord, writeRecord } from './records/signed-record.ts';

const FORMAT = 1;

export interface FleetFile {
  /** Names the fleet. */
  id: string;
  /** The store writes over what is there, although it was asked not to. */
  ignoresConditions: boolean;
}

/**
 * Reads the file, and writes it if it is not there.
 *
 * @throws {EngineError} `misconfigured`: what is there is not this node's to use. Others: the store cannot be used now
 */
export async function joinFleet(
  objects: ObjectStore,
  secret: FleetSecret,
  signal: AbortSignal,
): Promise<FleetFile> {
  const own = await writeRecord(secret, FLEET_FILE, { format: FORMAT, readableBy: FORMAT, id: randomUUID() });
  const found = (await read(objects, signal)) ?? own.toString();
  // Asks again for what the answer is known to: a store that does not know conditions writes the same bytes once more.
  const content = () => ({
    size: Buffer.byteLength(found),
    open: () => Readable.from([Buffer.from(found)], { objectMode: false }),
  });
  await objects.put(FLEET_FILE, content(), { onlyIf: 'absent', signal });
  const second = await objects.put(FLEET_FILE, content(), { onlyIf: 'absent', signal });
  // Another node may have been first.
  const text = (await read(objects, signal)) ?? found;
  const file = await readRecord(secret, FLEET_FILE, text, fleetRecord);
  if (file === undefined) {
    const what = `${FLEET_FILE} in the object store is signed with another secret: two fleets need two prefixes, and the nodes of one fleet the same fleet.secret`;
    throw new EngineError('misconfigured', what);
  }
  if (file.readableBy > FORMAT) {
    const what = `the object store is of format ${file.format}, which needs a newer Millpond; this version reads format ${FORMAT}`;
    throw new EngineError('misconfigured', what);
  }
  return { id: file.id, ignoresConditions: second !== 'present' };
}

async function read(objects: ObjectStore, signal: AbortSignal): Promise<string | undefined> {
  const found = await objects.get(FLEET_FILE, { signal });
  return found && text(found.body);
}
