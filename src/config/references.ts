/** The files and environment variables that the configuration names. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { SecretError } from './errors.ts';
import { type Issue, isRaw, upstreamEntries } from './file/raw.ts';
import { type Environment, Secret, whyUnreadable } from './secrets.ts';

/** The keys of an upstream that name a file or a variable. */
const REFERENCES = [
  { path: ['credentials', 'username', 'env'], kind: 'secret variable' },
  { path: ['credentials', 'username', 'file'], kind: 'secret file' },
  { path: ['credentials', 'password', 'env'], kind: 'secret variable' },
  { path: ['credentials', 'password', 'file'], kind: 'secret file' },
  { path: ['credentials', 'identityToken', 'env'], kind: 'secret variable' },
  { path: ['credentials', 'identityToken', 'file'], kind: 'secret file' },
  { path: ['credentials', 'dockerConfig'], kind: 'file' },
  { path: ['proxy', 'password', 'env'], kind: 'secret variable' },
  { path: ['proxy', 'password', 'file'], kind: 'secret file' },
  { path: ['ca'], kind: 'file' },
  { path: ['clientCertificate', 'cert'], kind: 'file' },
  { path: ['clientCertificate', 'key'], kind: 'file' },
] as const;

/** Makes the paths in upstreams absolute. Changes `data`. */
export function makePathsAbsolute(data: unknown, cwd: string): void {
  for (const { kind, holder, key, name } of references(data)) {
    // Leaves an empty path to the schema, which refuses it: made absolute, it would be `cwd`.
    if (kind !== 'secret variable' && name !== '') holder[key] = resolve(cwd, name);
  }
}

/** Environment variables that are not set or empty, and files that cannot be read. */
export async function referenceIssues(data: unknown, environment: Environment): Promise<Issue[]> {
  const issues: Issue[] = [];
  for (const { path, kind, name } of references(data)) {
    try {
      if (kind === 'file') await readFile(name);
      else await new Secret(kind === 'secret file' ? { file: name } : { env: name }, environment).read();
    } catch (error) {
      const message =
        error instanceof SecretError ? error.message : `file cannot be read: ${whyUnreadable(error).reason}`;
      issues.push({ path, part: 'value', message });
    }
  }
  return issues;
}

function* references(data: unknown) {
  for (const [host, entry] of upstreamEntries(data)) {
    for (const { path, kind } of REFERENCES) {
      const key = path.at(-1) ?? '';
      let holder: unknown = entry;
      for (const step of path.slice(0, -1)) holder = isRaw(holder) ? holder[step] : undefined;
      const name = isRaw(holder) ? holder[key] : undefined;
      if (!isRaw(holder) || typeof name !== 'string') continue;
      yield { path: ['upstreams', host, ...path], kind, holder, key, name };
    }
  }
}
