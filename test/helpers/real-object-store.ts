/** A real S3-compatible server, and a bucket in it. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { engine } from './engines.ts';
import { freePort, type RunningProcess, startProcess, until } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

export const STORE_ENVIRONMENT = { FLEET_KEY_ID: 'test', FLEET_KEY: 'testtest' };

export interface RealObjectStore {
  url: string;
  port: number;
  /** Holds a folder for each bucket. */
  directory: string;
  process: RunningProcess;
  /** Part of the configuration of a node. */
  config(secretFile: string, endpoint?: string): Record<string, unknown>;
}

/**
 * Starts versitygw with an empty bucket `millpond`. Its folder must be on a file system with extended attributes.
 *
 * @param before one that has ended: this one comes back in its place, with all that it had
 */
export async function startObjectStore(
  t: TestContext,
  before?: { port: number; directory: string },
): Promise<RealObjectStore> {
  const directory = before?.directory ?? (await tempDir(t));
  await mkdir(join(directory, 'millpond'), { recursive: true });
  const port = before?.port ?? (await freePort());
  const { FLEET_KEY_ID, FLEET_KEY } = STORE_ENVIRONMENT;
  const options = ['--port', `127.0.0.1:${port}`, '--access', FLEET_KEY_ID, '--secret', FLEET_KEY, '--quiet'];
  const server = startProcess(t, engine('versitygw'), [...options, 'posix', directory]);
  const url = `http://127.0.0.1:${port}`;
  await until('versitygw', server, async () => (await fetch(url)).status > 0);
  return {
    url,
    ...{ port, directory, process: server },
    config: (file, endpoint = url) => ({
      objects: {
        ...{ bucket: 'millpond', endpoint },
        credentials: { accessKeyId: { env: 'FLEET_KEY_ID' }, secretAccessKey: { env: 'FLEET_KEY' } },
      },
      secret: { file },
    }),
  };
}
