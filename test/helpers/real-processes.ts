/** Real programs as child processes: started with their output kept, awaited by what they do, ended by pid. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { cleanUp } from './cleanup.ts';

const PACKAGE_BY_PROGRAM: Record<string, string> = {
  'docker-registry': 'docker-registry',
  skopeo: 'skopeo',
  podman: 'podman',
  containerd: 'containerd',
  ctr: 'containerd',
  dockerd: 'docker.io',
  docker: 'docker.io',
  runc: 'runc',
  busybox: 'busybox-static',
  zsh: 'zsh',
  fish: 'fish',
  man: 'man-db',
  groff: 'groff',
  openssl: 'openssl',
  nginx: 'nginx',
  prometheus: 'prometheus',
  promtool: 'prometheus',
  'docker-credential-ecr-login': 'amazon-ecr-credential-helper',
  unshare: 'util-linux',
  ip: 'iproute2',
};

/** Why a test with these programs cannot run here; with CI=true a missing one is an error instead. */
export function missingPrograms(...programs: string[]): string | false {
  const missing = programs.filter((program) => !isOnPath(program));
  if (process.getuid?.() !== 0) missing.push('root');
  if (missing.length === 0) return false;
  const packages = [...new Set(missing.map((program) => PACKAGE_BY_PROGRAM[program]).filter(Boolean))];
  const reason = `missing: ${missing.join(', ')}; apt-get install ${packages.join(' ')}, and run as root`;
  if (process.env['CI'] === 'true') throw new Error(reason);
  return reason;
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export interface RunningProcess {
  /** Lines of standard output and standard error so far. */
  lines: string[];
  pid: number;
  /** SIGTERM, then SIGKILL after 20 s; resolves when it has ended. Idempotent. */
  stop(): Promise<void>;
  /** SIGKILL, at once. */
  kill(): Promise<void>;
}

export function startProcess(
  t: Pick<TestContext, 'after'>,
  command: string,
  args: string[],
  env: Record<string, string> = {},
): RunningProcess {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  const lines: string[] = [];
  keepLines(child, lines);
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', (error) => {
      lines.push(String(error));
      resolve();
    });
  });
  const stop = async () => {
    child.kill('SIGTERM');
    const patience = new AbortController();
    const forced = setTimeout(20_000, undefined, { signal: patience.signal }).then(
      () => child.kill('SIGKILL'),
      () => undefined,
    );
    await ended;
    patience.abort();
    await forced;
  };
  cleanUp(t, stop);
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return { lines, pid: child.pid ?? 0, stop, kill };
}

function keepLines(child: ChildProcess, lines: string[]): void {
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream?.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop() ?? '';
      lines.push(...parts);
    });
  }
}

/** Runs a program to its end. @throws with its output, if it fails */
export async function run(
  command: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<string> {
  try {
    const options = { env: { ...process.env, ...env }, maxBuffer: 16 * 1024 * 1024, timeout: 120_000 };
    const { stdout, stderr } = await promisify(execFile)(command, args, options);
    return stdout + stderr;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${command} ${args.join(' ')} failed: ${String(error)}\n${stdout}${stderr}`, {
      cause: error,
    });
  }
}

/** Asks until the answer is yes. Other people's daemons have no event for "ready". */
export async function until(
  what: string,
  process: RunningProcess,
  ask: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await ask().catch(() => false))) {
    if (performance.now() > deadline)
      throw new Error(`gave up waiting for ${what}:\n${process.lines.join('\n')}`);
    await setTimeout(50);
  }
}

const givenPorts = new Set<number>();

/**
 * A port that was free a moment ago: for programs that cannot be told to choose one themselves. Never
 * gives one twice: the kernel may, as soon as it is free again.
 */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  if (givenPorts.has(port)) return freePort();
  givenPorts.add(port);
  return port;
}
