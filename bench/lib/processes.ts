/** Child processes of a benchmark: output into a file, awaited by what they do, ended by pid, measured by /proc. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';

const READY_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 10_000;
const MIB = 1024 * 1024;

const alive = new Set<ChildProcess>();
process.once('exit', () => {
  for (const { pid } of alive) {
    for (const member of pid === undefined ? [] : family([pid])) {
      try {
        process.kill(member, 'SIGKILL');
      } catch {
        // it has ended by itself
      }
    }
  }
});

export interface RunningProcess {
  pid: number;
  logFile: string;
  /** SIGTERM, then SIGKILL. */
  stop(): Promise<void>;
}

/** Starts a service. Its standard output and error go to `logFile`, as they would for a service. */
export function startProcess(command: string, args: readonly string[], logFile: string): RunningProcess {
  const log = openSync(logFile, 'a');
  const child = spawn(command, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  alive.add(child);
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  }).then(() => void alive.delete(child));
  return {
    pid: child.pid ?? 0,
    logFile,
    stop: async () => {
      child.kill('SIGTERM');
      const patience = new AbortController();
      const forced = setTimeout(STOP_TIMEOUT_MS, undefined, { signal: patience.signal }).then(
        () => child.kill('SIGKILL'),
        () => undefined,
      );
      await ended;
      patience.abort();
      await forced;
    },
  };
}

/** Runs a program to its end and gives its standard output. @throws with its output, if it fails */
export async function run(command: string, args: readonly string[], timeoutMs = 300_000): Promise<string> {
  const options = { maxBuffer: 64 * MIB, timeout: timeoutMs };
  const running = promisify(execFile)(command, args, options);
  alive.add(running.child);
  try {
    return (await running).stdout;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${command} ${args.join(' ')} failed: ${String(error)}\n${stdout}${stderr}`, {
      cause: error,
    });
  } finally {
    alive.delete(running.child);
  }
}

/** Asks until the answer is yes. */
export async function until(
  what: string,
  running: RunningProcess,
  ask: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!(await ask().catch(() => false))) {
    if (performance.now() > deadline) {
      throw new Error(`gave up waiting for ${what}:\n${readFileSync(running.logFile, 'utf8')}`);
    }
    await setTimeout(20);
  }
}

const givenPorts = new Set<number>();

/** A port that was free a moment ago. Never gives one twice: the kernel may, as soon as it is free again. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  if (givenPorts.has(address.port)) return freePort();
  givenPorts.add(address.port);
  return address.port;
}

export function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The processes of one server. */
type Pids = readonly number[];

const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

/** CPU seconds that processes and their living children have used. */
export function cpuSeconds(pids: Pids): number {
  let ticks = 0;
  for (const member of family(pids)) {
    // The second field, the name, may hold spaces; utime and stime are the 14th and 15th.
    const fields = readFileSync(`/proc/${member}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

/** Waits until they use no CPU any more (work that goes on after the last reply). */
export async function settled(pids: Pids): Promise<void> {
  const deadline = performance.now() + 5000;
  for (let quiet = 0, before = cpuSeconds(pids); quiet < 3 && performance.now() < deadline; ) {
    await setTimeout(50);
    const now = cpuSeconds(pids);
    quiet = now - before < 0.011 ? quiet + 1 : 0; // a tick: even an idle server has a timer
    before = now;
  }
}

export function residentMiB(pids: Pids): number {
  return memory(pids, 'VmRSS');
}

/** Without the files that are mapped into it, which the system takes back whenever it likes. */
export function anonymousMiB(pids: Pids): number {
  return memory(pids, 'RssAnon');
}

/** Since {@link resetPeak}. */
export function peakResidentMiB(pids: Pids): number {
  return memory(pids, 'VmHWM');
}

export function resetPeak(pids: Pids): void {
  for (const member of family(pids)) writeFileSync(`/proc/${member}/clear_refs`, '5');
}

function memory(pids: Pids, field: 'VmRSS' | 'VmHWM' | 'RssAnon'): number {
  let kib = 0;
  for (const member of family(pids)) {
    const match = new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${member}/status`, 'utf8'));
    kib += Number(match?.[1] ?? 0);
  }
  return kib / 1024;
}

/** Processes and their children: nginx works in them. */
function family(pids: Pids): number[] {
  return pids.flatMap((pid) => {
    const file = `/proc/${pid}/task/${pid}/children`;
    if (!existsSync(file)) return []; // it has just ended
    const children = readFileSync(file, 'utf8').trim();
    return [pid, ...(children === '' ? [] : children.split(' ').map(Number))];
  });
}
