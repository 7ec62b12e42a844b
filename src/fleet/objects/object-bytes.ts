/** Reads a small object whole. */
import { buffer } from 'node:stream/consumers';
import type { Clock } from '../../clock.ts';
import type { Engine } from '../engines/engine.ts';
import { wholeBody } from '../engines/whole-body.ts';
import type { ObjectStore } from './object-store.ts';

/** @returns undefined if it is not there, or too large to be what is asked for @throws {EngineError} */
export async function readObject(
  { objects, engine, clock }: { objects: ObjectStore; engine: Engine; clock: Clock },
  name: string,
  { mostBytes, withinMs }: { mostBytes: number; withinMs: number },
): Promise<string | undefined> {
  const found = await engine.ask('get', withinMs, (signal) => objects.get(name, { signal }));
  if (found === undefined) return undefined;
  const { size, body } = found;
  if (size <= mostBytes) return (await buffer(wholeBody('the object store', body, size, clock))).toString();
  body.on('error', () => undefined).destroy();
  return undefined;
}
