/** Programs that `.ci/engines` builds, in the versions of `.ci/engines.list`. */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

const LIST = resolve(import.meta.dirname, '../../.ci/engines.list');
const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'millpond-engines');

/** Why a test with these engines cannot run here; with CI=true a missing one is an error instead. */
export function missingEngines(...names: string[]): string | false {
  const missing = names.filter((name) => !existsSync(folderOf(name)));
  if (missing.length === 0) return false;
  const reason = `not built: ${missing.join(', ')}; run .ci/engines ${missing.join(' ')}`;
  if (process.env['CI'] === 'true') throw new Error(reason);
  return reason;
}

/**
 * The path of an engine's program.
 *
 * @param program where it has another name than the engine: `ctr` of containerd
 */
export function engine(name: string, program = name): string {
  return join(folderOf(name), program);
}

function folderOf(name: string): string {
  const version = new RegExp(`^${name} (\\S+)`, 'm').exec(readFileSync(LIST, 'utf8'))?.[1];
  if (version === undefined) throw new Error(`${name} is not in ${LIST}`);
  return join(CACHE, `${name}-${version}`);
}
