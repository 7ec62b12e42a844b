/** The real programs that sign: cosign, and Notation's own library. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { engine } from '../engines.ts';
import { run } from '../real-processes.ts';

const SIGNER = resolve(import.meta.dirname, '../../fixtures/signatures/notation-signer');
/** Where `.ci/engines` finds Go, too. */
const PATH = `${process.env['PATH']}:/usr/local/go/bin`;
const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'millpond-engines');

/** @param home its own, so that it neither reads nor writes anything of the user */
export async function cosign(home: string, ...args: readonly string[]): Promise<void> {
  await run(engine('cosign'), [...args], { COSIGN_PASSWORD: 'test', HOME: home });
}

/** Why {@link notationSigner} cannot work here; with CI=true that is an error instead. */
export function missingGo(): string | false {
  if (PATH.split(delimiter).some((folder) => existsSync(join(folder, 'go')))) return false;
  if (process.env['CI'] === 'true') throw new Error('go is not installed');
  return 'missing: go; see https://go.dev/doc/install';
}

/** Builds the program that signs with notation-go, once for each state of its source. @returns its path */
export async function notationSigner(): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['main.go', 'go.sum']) hash.update(readFileSync(join(SIGNER, file)));
  const program = join(CACHE, `notation-signer-${hash.digest('hex').slice(0, 12)}`, 'notation-signer');
  if (existsSync(program)) return program;
  await mkdir(dirname(program), { recursive: true });
  const env = { PATH, CGO_ENABLED: '0' };
  await run('go', ['-C', SIGNER, 'build', '-trimpath', '-o', `${program}.part`, '.'], env);
  await rename(`${program}.part`, program);
  return program;
}
