/** Whether a Trivy can be started and has a database. Asked before each scan: what fails after it is the image's fault. */
import { z } from 'zod';
import { SpawnError } from '../child/child.ts';
import type { ScannerHttp } from '../scanner/http.ts';
import { versionArguments } from './arguments.ts';
import type { TrivyRuns } from './runs.ts';

/** Bytes that the files of `trivy version` may take. */
const MAX_BYTES = 16 * 1024 * 1024;
const MAX_ANSWER_BYTES = 1024 * 1024;

const version = z.object({ Version: z.string(), VulnerabilityDB: z.object({}).nullish() });

/** Why it cannot scan. Undefined: it can. @throws the reason of `signal`, when it aborts */
export async function whyNotWell(
  runs: TrivyRuns,
  server: { url: string; http: ScannerHttp } | undefined,
  signal: AbortSignal,
): Promise<string | undefined> {
  let has = await ofProgram(runs, signal);
  if (typeof has !== 'string' && server !== undefined) has = await ofServer(server, signal);
  if (typeof has === 'string') return has;
  return has.database ? undefined : 'it has no database of vulnerabilities';
}

type Health = { database: boolean } | string;

async function ofProgram(runs: TrivyRuns, signal: AbortSignal): Promise<Health> {
  try {
    const args = versionArguments(runs.folders.cache);
    const { code, stdout, stderr } = await runs.run({ args, maxBytes: MAX_BYTES }, signal);
    return code === 0 ? read(stdout) : `it does not even tell its version: ${stderr}`;
  } catch (error) {
    if (error instanceof SpawnError) return `it cannot be started: ${error.message}`;
    throw error;
  }
}

/** A server of Trivy's answers `/version` without its token. */
async function ofServer(server: { url: string; http: ScannerHttp }, signal: AbortSignal): Promise<Health> {
  try {
    const url = new URL('/version', server.url);
    const question = { method: 'GET', headers: {}, maxBytes: MAX_ANSWER_BYTES } as const;
    const { status, body } = await server.http.ask(url, question, signal);
    return status === 200 ? read(body) : `its server answers /version with ${status}`;
  } catch (error) {
    signal.throwIfAborted();
    return `its server cannot be reached: ${error instanceof Error ? error.message : 'unknown'}`;
  }
}

function read(bytes: Buffer): Health {
  try {
    const { VulnerabilityDB } = version.parse(JSON.parse(bytes.toString('utf8')));
    return { database: VulnerabilityDB !== undefined && VulnerabilityDB !== null };
  } catch {
    return 'it tells its version in a form that is not known';
  }
}
