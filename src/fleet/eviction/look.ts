/**
 * One look at the object store: how much it holds, what was used least recently, and so what leaves it.
 *
 * What is chosen is marked, and removed by a later look if nobody has used it meanwhile. A manifest goes before what it
 * lists: it is taken by its last use, which counts for its blobs, too, and nothing is removed while a manifest that lists
 * it stays.
 */
import type { Digest } from '../../oci/digest.ts';
import { type Coordinator, type LastUse, USE_TIMES } from '../coordinator/coordinator.ts';
import type { Engine } from '../engines/engine.ts';
import { CONTENT_PREFIX, contentDigest, contentName } from '../objects/names.ts';
import { type BackgroundStore, isAnswer } from './background-store.ts';
import { keyOf, Lists } from './lists.ts';
import type { FoundRecords, StoreRecords } from './store-records.ts';

export interface LookContext {
  store: BackgroundStore;
  records: StoreRecords;
  coordinator: Coordinator;
  /** The coordinator's. */
  engine: Engine;
  /** Bytes that the store should hold at most. */
  maxBytes: number;
  /** Called with the bytes of each object that was removed. */
  onRemoved: (bytes: number) => void;
}

export interface Looked {
  /** Content in the store: bytes, and objects. */
  bytes: number;
  objects: number;
  /** Bytes of it that are marked as leaving. */
  leavingBytes: number;
}

interface Candidate extends LastUse {
  digest: Digest;
  key: number;
  size: number;
  /** The last use of it, or of a manifest that lists it. */
  neededAt: number;
  height: number;
}

/** Not a pull's: nobody waits. */
const COMMAND_MS = 2_000;
const DIGESTS_A_COMMAND = 1_000;
/** What leaves at most between two looks. */
const MOST_CANDIDATES = 10_000;
const REMOVALS_AT_A_TIME = 16;
const REMOVALS_A_DECISION = 64;

/** @throws {EngineError} an engine does not answer, and nothing more is removed */
export async function look(context: LookContext, signal: AbortSignal): Promise<Looked> {
  const records = await context.records.find(signal);
  const lists = await Lists.of(records.lists);
  const seen = await survey(context, records, lists, signal);
  const inOrder = seen.oldest.sorted();
  const removed = await removeDue(context, { ...seen, inOrder }, records, lists, signal);
  const bytes = seen.bytes - removed.bytes;
  const left = inOrder.filter(({ digest }) => !removed.digests.has(digest));
  const kept = left.filter(isNeededAgain).map(({ digest }) => digest);
  await inBatches(kept, (batch) => ask(context, 'use', () => context.coordinator.uses.use(batch)));
  let leavingBytes = left.filter(isLeaving).reduce((sum, { size }) => sum + size, 0);
  const victims: Candidate[] = [];
  for (const candidate of left) {
    if (bytes - leavingBytes <= context.maxBytes) break;
    if (candidate.leavingSince !== undefined) continue;
    victims.push(candidate);
    leavingBytes += candidate.size;
  }
  const marked = new Set(
    await inBatches(victims, (batch) => ask(context, 'mark', () => context.coordinator.uses.mark(batch))),
  );
  for (const { digest, size } of victims) if (!marked.has(digest)) leavingBytes -= size;
  return { bytes, objects: seen.objects - removed.objects, leavingBytes };
}

function isLeaving({ leavingSince, neededAt }: Candidate): boolean {
  return leavingSince !== undefined && neededAt <= leavingSince;
}

/** A manifest that lists it was used since it was marked. */
function isNeededAgain({ leavingSince, neededAt }: Candidate): boolean {
  return leavingSince !== undefined && neededAt > leavingSince;
}

interface Survey {
  bytes: number;
  objects: number;
  /** The coordinator's time; milliseconds since the epoch. */
  now: number;
  oldest: Oldest;
}

/** Lists the whole store, and finds out when each object was last used. */
async function survey(
  context: LookContext,
  records: FoundRecords,
  lists: Lists,
  signal: AbortSignal,
): Promise<Survey> {
  const seen: Survey = { bytes: 0, objects: 0, now: 0, oldest: new Oldest() };
  const lastUses = async (digests: readonly Digest[]): Promise<(LastUse | undefined)[]> => {
    const { uses, now } = await ask(context, 'look', () => context.coordinator.uses.look(digests));
    seen.now = Math.max(seen.now, now);
    return uses;
  };
  const neededAt = new Map<number, number>();
  const withoutContent = new Map<Digest, LastUse>();
  await inBatches([...records.manifests.keys()], async (batch) => {
    const uses = await lastUses(batch);
    for (const [at, digest] of batch.entries()) {
      const use = uses[at];
      if (use === undefined) continue;
      neededAt.set(keyOf(digest), use.usedAt);
      withoutContent.set(digest, use);
    }
    return [];
  });
  await lists.passDown(neededAt);
  const consider = (digest: Digest, size: number, use: LastUse) => {
    const key = keyOf(digest);
    const needed = Math.max(use.usedAt, neededAt.get(key) ?? 0);
    seen.oldest.add({ ...use, digest, key, size, neededAt: needed, height: lists.heightOf(key) });
  };
  for await (const page of context.store.list(CONTENT_PREFIX, signal)) {
    const own = page.flatMap(({ name, size }) => {
      const digest = contentDigest(name);
      return digest === undefined ? [] : [{ digest, size }];
    });
    const uses = await lastUses(own.map(({ digest }) => digest));
    for (const [at, { digest, size }] of own.entries()) {
      seen.bytes += size;
      seen.objects += 1;
      withoutContent.delete(digest);
      const use = uses[at];
      if (use !== undefined) consider(digest, size, use); // else another look removes it right now
    }
  }
  for (const [digest, use] of withoutContent) consider(digest, 0, use);
  return seen;
}

/** Removes what has been leaving for long enough, until the store is small enough. */
async function removeDue(
  context: LookContext,
  { bytes, now, inOrder }: { bytes: number; now: number; inOrder: readonly Candidate[] },
  records: FoundRecords,
  lists: Lists,
  signal: AbortSignal,
): Promise<{ digests: Set<Digest>; objects: number; bytes: number }> {
  const removed = { digests: new Set<Digest>(), objects: 0, bytes: 0 };
  const due: Candidate[] = [];
  let excess = bytes - context.maxBytes;
  for (const candidate of inOrder) {
    if (excess <= 0) break;
    const { leavingSince = now, size } = candidate;
    if (!isLeaving(candidate) || now - leavingSince < USE_TIMES.leavingMs) continue;
    due.push(candidate);
    excess -= size;
  }
  if (due.length === 0) return removed;
  const parents = await lists.parentsOf(new Set(due.map(({ key }) => key)));
  const gone = new Set<number>();
  // A manifest that is used again keeps all that it lists: those above are decided on before those below.
  const levels = Map.groupBy(due, ({ height }) => height);
  for (const height of [...levels.keys()].sort((a, b) => b - a)) {
    const level = (levels.get(height) ?? []).filter(({ key }) =>
      (parents.get(key) ?? []).every((parent) => gone.has(parent)),
    );
    for (let at = 0; at < level.length; at += REMOVALS_A_DECISION) {
      const batch = level.slice(at, at + REMOVALS_A_DECISION);
      for (const { digest, key, size } of await removeBatch(context, batch, records, signal)) {
        gone.add(key);
        removed.digests.add(digest);
        removed.objects += size === 0 ? 0 : 1;
        removed.bytes += size;
        context.onRemoved(size);
      }
    }
  }
  return removed;
}

/** @returns what is gone */
async function removeBatch(
  context: LookContext,
  batch: readonly Candidate[],
  records: FoundRecords,
  signal: AbortSignal,
): Promise<Candidate[]> {
  const { store, coordinator } = context;
  // Signed before it is decided: should this node be stopped in between, the store refuses it when it goes on.
  const removals = new Map(
    await Promise.all(
      batch.map(async ({ digest }) => {
        const names = [
          ...(records.tags.get(digest) ?? []),
          ...(records.manifests.get(digest) ?? []).map(({ name }) => ({ name })),
          { name: contentName(digest) },
        ];
        const steps = await Promise.all(names.map((name) => store.prepareRemoval(name, signal)));
        return [digest, steps] as const;
      }),
    ),
  );
  const taken = new Set(
    await ask(context, 'take', () => coordinator.uses.take(batch.map(({ digest }) => digest))),
  );
  const over: Digest[] = [];
  const gone: Candidate[] = [];
  let failure: unknown;
  const left = batch.filter(({ digest }) => taken.has(digest)).values();
  const lane = async () => {
    for (const candidate of left) {
      if (failure !== undefined) return;
      try {
        // The records first: what is left after a crash is content that nobody has to find.
        for (const remove of removals.get(candidate.digest) ?? []) await remove();
        gone.push(candidate);
        over.push(candidate.digest);
      } catch (error) {
        failure = error;
        if (isAnswer(error)) over.push(candidate.digest);
      }
    }
  };
  await Promise.all(Array.from({ length: REMOVALS_AT_A_TIME }, lane));
  await ask(context, 'removed', () => coordinator.uses.removed(over));
  if (failure !== undefined) throw failure;
  return gone;
}

/** The least recently needed, a manifest before what it lists. Keeps no more than it must. */
class Oldest {
  #kept: Candidate[] = [];

  add(candidate: Candidate): void {
    this.#kept.push(candidate);
    if (this.#kept.length >= 2 * MOST_CANDIDATES) this.#kept = this.sorted();
  }

  sorted(): Candidate[] {
    return this.#kept
      .sort((a, b) => a.neededAt - b.neededAt || b.height - a.height)
      .slice(0, MOST_CANDIDATES);
  }
}

async function inBatches<T, R>(
  items: readonly T[],
  step: (batch: readonly T[]) => Promise<readonly R[]>,
): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < items.length; at += DIGESTS_A_COMMAND)
    results.push(...(await step(items.slice(at, at + DIGESTS_A_COMMAND))));
  return results;
}

function ask<T>({ engine }: LookContext, operation: string, send: () => Promise<T>): Promise<T> {
  return engine.ask(operation, COMMAND_MS, send);
}
