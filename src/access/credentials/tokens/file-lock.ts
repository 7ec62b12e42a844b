/**
 * One process at a time changes a file. The lock is a second file, `FILE.lock`, which only one process can create.
 *
 * A process that was killed leaves its lock behind. A lock that stays the same for 10 s is broken: no change takes that
 * long. Time is counted in looks, because the clocks of machines differ. A process that was only slow notices a broken
 * lock by `isHeld`, before its change takes effect.
 */
import { randomUUID } from 'node:crypto';
import { readFile, unlink, writeFile } from 'node:fs/promises';
import type { Clock } from '../../../clock.ts';
import { errnoOf, FileError } from '../../../files/errors.ts';

const LOOK_AGAIN_MS = 50;
/** Looks at an unchanged lock, until it is broken: 10 s. */
const STALE_LOOKS = 200;
/** Looks at locks of others in turn, until this process gives up: 30 s. */
const MOST_LOOKS = 600;

/**
 * @param file absolute path @param work is asked to look at `isHeld` just before its change takes effect
 * @throws {FileError} the lock cannot be taken
 */
export async function withFileLock<T>(
  file: string,
  clock: Clock,
  work: (isHeld: () => Promise<boolean>) => Promise<T>,
): Promise<T> {
  const lock = `${file}.lock`;
  const mine = randomUUID();
  await acquire(lock, mine, file, clock);
  const isHeld = async () => (await holderOf(lock)) === mine;
  try {
    return await work(isHeld);
  } finally {
    if (await isHeld()) await unlink(lock);
  }
}

async function acquire(lock: string, mine: string, file: string, clock: Clock): Promise<void> {
  let seen: string | undefined;
  let unchanged = 0;
  for (let looks = 0; looks < MOST_LOOKS; looks += 1) {
    if (await create(lock, mine, file)) return;
    const holder = await holderOf(lock);
    unchanged = holder === seen ? unchanged + 1 : 0;
    seen = holder;
    if (holder !== undefined && unchanged >= STALE_LOOKS) await removeStale(lock);
    else await clock.sleep(LOOK_AGAIN_MS);
  }
  throw new FileError(file, `other processes change it all the time: see who holds ${lock}`);
}

async function create(lock: string, mine: string, file: string): Promise<boolean> {
  try {
    await writeFile(lock, mine, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    const problem = `cannot be changed: ${lock} cannot be created (${errnoOf(error)}). ${hintFor(error)}`;
    throw new FileError(file, problem, { cause: error });
  }
}

function hintFor(error: unknown): string {
  return ['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')
    ? 'There is no such folder'
    : 'A file that is mounted read-only, such as a Kubernetes Secret, is changed where it comes from: `millpond token create --print-line` prints its new line';
}

async function holderOf(lock: string): Promise<string | undefined> {
  try {
    return await readFile(lock, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function removeStale(lock: string): Promise<void> {
  try {
    await unlink(lock);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
