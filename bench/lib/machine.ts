/** Where and with what it was measured. */
import { cpus, loadavg, release, totalmem } from 'node:os';
import { type Checkout, missingProgram } from './peers.ts';
import { isOnPath, run } from './processes.ts';

export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  loadAtStart: number;
  /** What is measured. */
  checkout: Version;
  versions: Record<string, string>;
}

export interface Version {
  /** With `+` where the sources have changes that are not committed. */
  commit: string;
  node: string;
}

export async function describeMachine(checkout: Checkout): Promise<Machine> {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    loadAtStart: loadavg()[0] ?? 0,
    checkout: await describeCheckout(checkout),
    versions: {
      'docker-registry': missingProgram('docker-registry') ?? (await says('docker-registry', '--version')),
      nginx: missingProgram('nginx') ?? (await says('nginx', '-v')),
      wrk: await says('wrk', '-v'),
      skopeo: await says('skopeo', '--version'),
    },
  };
}

export async function describeCheckout({ folder, node }: Checkout): Promise<Version> {
  return { commit: await commit(folder), node: (await run(node, ['--version'])).trim() };
}

async function commit(folder: string): Promise<string> {
  try {
    const id = (await run('git', ['-C', folder, 'rev-parse', '--short', 'HEAD'])).trim();
    return (await run('git', ['-C', folder, 'status', '--porcelain', 'src'])) === '' ? id : `${id}+`;
  } catch {
    return 'unknown';
  }
}

async function says(program: string, option: string): Promise<string> {
  if (!isOnPath(program)) return 'missing';
  const output = await run('sh', ['-c', `${program} ${option} 2>&1 || true`]);
  return /v?\d+\.\d+[\w.+~-]*/.exec(output)?.[0] ?? 'unknown';
}
