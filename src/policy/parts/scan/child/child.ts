/** Runs a program that may do anything: hang, ignore signals, write without end, leave children behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Clock } from '../../../../clock.ts';

export interface ChildSettings {
  command: string;
  args: readonly string[];
  /** All of its environment. */
  env: Readonly<Record<string, string>>;
  cwd: string;
  /** What it reads from standard input. Absent: nothing. */
  input?: Buffer;
  /** Standard output beyond this ends it; bytes. */
  maxOutputBytes: number;
}

export interface ChildResult {
  /** Null: it was ended by a signal. */
  code: number | null;
  stdout: Buffer;
  /** The last of standard error, for the log. */
  stderr: string;
  overflowed: boolean;
}

/** The system could not start it: it is not there, or may not be run. */
export class SpawnError extends Error {
  override readonly name = 'SpawnError';
}

const STDERR_BYTES = 4096;
/** A process that hangs in the kernel does not even end by SIGKILL; nobody waits for it longer. */
const DEATH_MS = 5_000;

/**
 * Runs it to its end. It leads a process group of its own, which is killed as a whole when `signal` aborts and also when it
 * has ended by itself: what it left behind ends, too. (What makes a group of its own gets away; to hold that needs cgroups.)
 *
 * @throws {SpawnError}
 * @throws the reason of `signal`, when it aborts: nothing of the group runs then any more
 */
export async function runChild(
  settings: ChildSettings,
  clock: Clock,
  signal: AbortSignal,
): Promise<ChildResult> {
  signal.throwIfAborted();
  const { command, args, env, cwd, input } = settings;
  // `detached` makes it the leader of a process group. There is no shell: nothing in an argument is a command.
  const child = spawn(command, args, {
    env,
    cwd,
    detached: true,
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  // It may end without having read all.
  child.stdin?.on('error', () => undefined).end(input);
  const output = new Output(child, settings.maxOutputBytes);
  const closed = new Promise<number | null>((resolve, reject) => {
    child.once('error', (error) =>
      reject(child.pid === undefined ? new SpawnError(error.message, { cause: error }) : error),
    );
    // Grandchildren may hold the pipes open, so the group is killed before 'close' is awaited.
    child.once('exit', () => killGroup(child));
    child.once('close', (code) => resolve(code));
  });
  const end = () => {
    killGroup(child);
    child.stdout?.destroy();
    child.stderr?.destroy();
  };
  signal.addEventListener('abort', end, { once: true });
  try {
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true }),
    );
    const code = await Promise.race([closed, aborted.then(() => dead(closed, clock))]);
    signal.throwIfAborted();
    return { code: code ?? null, stdout: output.bytes, stderr: output.errors, overflowed: output.overflowed };
  } finally {
    signal.removeEventListener('abort', end);
  }
}

async function dead(closed: Promise<number | null>, clock: Clock): Promise<null> {
  const enough = new AbortController();
  const waited = clock.sleep(DEATH_MS, enough.signal).catch(() => undefined);
  await Promise.race([closed, waited]);
  enough.abort();
  return null;
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}

class Output {
  readonly #chunks: Buffer[] = [];
  #length = 0;
  #errors = Buffer.alloc(0);
  overflowed = false;

  constructor(child: ChildProcess, maxBytes: number) {
    child.stdout?.on('data', (chunk: Buffer) => {
      this.#length += chunk.length;
      if (this.#length <= maxBytes) {
        this.#chunks.push(chunk);
        return;
      }
      this.overflowed = true;
      this.#chunks.length = 0;
      child.stdout?.destroy();
      killGroup(child);
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#errors = Buffer.concat([this.#errors, chunk]).subarray(-STDERR_BYTES);
    });
    for (const stream of [child.stdout, child.stderr]) stream?.on('error', () => undefined);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get errors(): string {
    return this.#errors.toString('utf8');
  }
}
