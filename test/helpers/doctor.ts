/** `millpond doctor` as a user types it, in this process. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { stringify } from 'yaml';
import { runCommandLine } from '../../src/cli/program.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { assertNothingTold } from './secrets.ts';
import { tempDir } from './temp-dir.ts';

export interface Diagnosis {
  exitCode: number;
  stdout: string;
  stderr: string;
  /** The lines about an upstream or about what is checked once, such as `docker.io` or `disk`. */
  about: (subject: string) => string[];
}

/** @param config merged over a small cache whose directory is not there yet */
export async function runDoctor(
  t: Pick<TestContext, 'after'>,
  config: Record<string, unknown>,
  options: { clock?: Clock; environment?: Record<string, string>; args?: string[] } = {},
): Promise<Diagnosis> {
  const directory = await tempDir(t);
  const file = join(directory, 'millpond.yaml');
  const cache = { directory: join(directory, 'data'), maxSize: '1MiB', keepFree: '0B' };
  await writeFile(file, stringify({ cache, ...config }));
  const { clock = systemClock, environment = {}, args = [] } = options;
  const written = { stdout: '', stderr: '' };
  const exitCode = await runCommandLine(['doctor', '--config', file, ...args], {
    version: '1.2.3',
    environment,
    cwd: directory,
    clock,
    stdout: { write: (text) => void (written.stdout += text) },
    stderr: { write: (text) => void (written.stderr += text) },
    serve: async () => undefined,
  });
  if (exitCode === 2) throw new Error(`the configuration of the test is wrong: ${written.stderr}`);
  assertNothingTold([written.stdout, written.stderr], environment);
  const about = (subject: string) =>
    written.stdout
      .split('\n')
      .map((line) => line.replace(/ +/, ' '))
      .filter((line) => line.split(' ')[1]?.replace(/:$/, '') === subject)
      .map((line) => line.replace(new RegExp(`^(\\w+) ${subject} `), '$1 '));
  return { exitCode, ...written, about };
}
