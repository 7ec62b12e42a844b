/** The mirror as its users run it: a process of its own, with a configuration file. */
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { stringify } from 'yaml';
import { type RunningProcess, startProcess, until } from './real-processes.ts';

export const MAIN = resolve(import.meta.dirname, '../../src/main.ts');

export interface RealMirror {
  port: number;
  operationsPort: number;
  process: RunningProcess;
  stop(): Promise<void>;
}

/**
 * @param directory of configuration and cache; a later mirror on the same one finds what the earlier one left
 * @param config merged over free ports and that cache directory
 */
export async function startRealMirror(
  t: Pick<TestContext, 'after'>,
  directory: string,
  config: Record<string, unknown>,
  env: Record<string, string> = {},
): Promise<RealMirror> {
  const file = join(directory, 'millpond.yaml');
  const all = {
    server: { listen: '127.0.0.1:0' },
    operations: { listen: '127.0.0.1:0' },
    cache: { directory: join(directory, 'data') },
    ...config,
  };
  await writeFile(file, stringify(all));
  const process_ = startProcess(t, process.execPath, [MAIN, 'serve', '--config', file], env);
  const portOf = (listener: string) => {
    const line = process_.lines.find((text) => text.includes(`"listener":"${listener}"`));
    const address = line === undefined ? '' : (JSON.parse(line) as { address: string }).address;
    return Number(address.split(':').at(-1) ?? 0);
  };
  await until('the mirror', process_, async () => {
    const operationsPort = portOf('operations');
    if (operationsPort === 0 || portOf('registry') === 0) return false;
    return (await fetch(`http://127.0.0.1:${operationsPort}/readyz`)).ok;
  });
  return {
    port: portOf('registry'),
    operationsPort: portOf('operations'),
    process: process_,
    stop: () => process_.stop(),
  };
}
