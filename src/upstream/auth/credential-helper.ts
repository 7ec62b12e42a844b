/**
 * Runs Docker's credential helpers: `docker-credential-<name> get`.
 *
 * Source: docker/docker-credential-helpers, `credentials/` and `client/`. Never put what a helper prints into a log
 * line or an error: it may be the secret.
 */
import { execFile } from 'node:child_process';
import type { Clock } from '../../clock.ts';
import type { CredentialProvider, Credentials } from './credentials.ts';

const TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;
/** Keep an answer this long, because many helpers ask a cloud or a keyring each time. */
const KEPT_MS = 5 * 60_000;
/** Keep a refused answer at least this long. Else the mirror would run the helper with every pull that it fails. */
const RERUN_AFTER_MS = 10_000;
const NOT_FOUND = 'credentials not found in native keychain';
const TOKEN_USER = '<token>';

export interface HelperContext {
  environment: Readonly<Record<string, string | undefined>>;
  clock: Clock;
}

/**
 * @param name what follows `docker-credential-`
 * @param server the registry, by the name that `docker login` stores
 */
export function helperCredentials(name: string, server: string, context: HelperContext): CredentialProvider {
  const { clock } = context;
  let kept: { at: number; credentials: Promise<Credentials | undefined> } | undefined;
  return async ({ refused } = { refused: false }) => {
    const age = kept === undefined ? Number.POSITIVE_INFINITY : Math.abs(clock.now() - kept.at);
    if (kept === undefined || age >= (refused ? RERUN_AFTER_MS : KEPT_MS)) {
      kept = { at: clock.now(), credentials: run(name, server, context) };
    }
    const asked = kept;
    try {
      return await asked.credentials;
    } catch (error) {
      if (kept === asked) kept = undefined;
      throw error;
    }
  };
}

async function run(name: string, server: string, context: HelperContext): Promise<Credentials | undefined> {
  const program = `docker-credential-${name}`;
  const { failure, stdout } = await execute(program, server, context);
  if (failure !== undefined) {
    // Helpers print their errors to standard output.
    if (stdout.trim() === NOT_FOUND) return undefined;
    throw new Error(`${program} failed: ${failure}`);
  }
  let answer: unknown;
  try {
    answer = JSON.parse(stdout);
  } catch {
    throw new Error(`${program} did not print JSON`);
  }
  if (typeof answer === 'object' && answer !== null && 'Username' in answer && 'Secret' in answer) {
    const { Username: username, Secret: password } = answer;
    if (typeof username === 'string' && typeof password === 'string' && password !== '') {
      return username === TOKEN_USER ? { identityToken: password } : { username, password };
    }
  }
  throw new Error(`${program} printed no Username and Secret`);
}

function execute(
  program: string,
  input: string,
  { environment }: HelperContext,
): Promise<{ failure?: string; stdout: string }> {
  const options = {
    env: { ...environment },
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: MAX_OUTPUT_BYTES,
  } as const;
  return new Promise((resolve) => {
    const child = execFile(program, ['get'], options, (error, stdout) => {
      if (error === null) resolve({ stdout });
      else resolve({ failure: whyFailed(error), stdout });
    });
    child.stdin?.on('error', () => undefined); // a helper may exit without reading its input
    child.stdin?.end(input);
  });
}

function whyFailed(error: Error & { code?: unknown; killed?: boolean }): string {
  if (error.code === 'ENOENT') return 'it is not on the PATH';
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return 'it printed too much';
  if (error.killed === true) return `it did not finish within ${TIMEOUT_MS / 1000} s`;
  return `exit code ${String(error.code)}`;
}
