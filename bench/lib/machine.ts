/** Where and with what it was measured. */
import { cpus, loadavg, release, totalmem } from 'node:os';
import { missingProgram } from './peers.ts';
import { isOnPath, run } from './processes.ts';

export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  loadAtStart: number;
  commit: string;
  versions: Record<string, string>;
}

export async function describeMachine(source: string): Promise<Machine> {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    loadAtStart: loadavg()[0] ?? 0,
    commit: await commit(source),
    versions: {
      node: process.version,
      'docker-registry': missingProgram('docker-registry') ?? (await says('docker-registry', '--version')),
      nginx: missingProgram('nginx') ?? (await says('nginx', '-v')),
      wrk: await says('wrk', '-v'),
      skopeo: await says('skopeo', '--version'),
    },
  };
}

/** With `+` where `source` has changes that are not committed. */
async function commit(source: string): Promise<string> {
  try {
    const id = (await run('git', ['-C', source, 'rev-parse', '--short', 'HEAD'])).trim();
    return (await run('git', ['-C', source, 'status', '--porcelain', '.'])) === '' ? id : `${id}+`;
  } catch {
    return 'unknown';
  }
}

async function says(program: string, option: string): Promise<string> {
  if (!isOnPath(program)) return 'missing';
  const output = await run('sh', ['-c', `${program} ${option} 2>&1 || true`]);
  return /v?\d+\.\d+[\w.+~-]*/.exec(output)?.[0] ?? 'unknown';
}
