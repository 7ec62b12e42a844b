/** The files and environment variables that the configuration names. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { SecretError } from './errors.ts';
import { isOfShell } from './fields/paths.ts';
import { type Issue, isRaw } from './file/raw.ts';
import { type Environment, Secret, whyUnreadable } from './secrets.ts';

/** A private file holds secrets beside other things, or in a form of its own. A secret file holds one and nothing else. */
type Kind = 'file' | 'private file' | 'secret file' | 'secret variable';

interface Reference {
  /** `*` stands for each entry of a list or map. */
  path: readonly string[];
  kind: Kind;
}

const UPSTREAM_REFERENCES: readonly Reference[] = [
  { path: ['credentials', 'username', 'env'], kind: 'secret variable' },
  { path: ['credentials', 'username', 'file'], kind: 'secret file' },
  { path: ['credentials', 'password', 'env'], kind: 'secret variable' },
  { path: ['credentials', 'password', 'file'], kind: 'secret file' },
  { path: ['credentials', 'identityToken', 'env'], kind: 'secret variable' },
  { path: ['credentials', 'identityToken', 'file'], kind: 'secret file' },
  { path: ['credentials', 'dockerConfig'], kind: 'private file' },
  { path: ['proxy', 'password', 'env'], kind: 'secret variable' },
  { path: ['proxy', 'password', 'file'], kind: 'secret file' },
  { path: ['ca'], kind: 'file' },
  { path: ['clientCertificate', 'cert'], kind: 'file' },
  { path: ['clientCertificate', 'key'], kind: 'private file' },
];

const TLS_FILES: readonly Reference[] = [
  { path: ['certificate'], kind: 'file' },
  { path: ['key'], kind: 'private file' },
  { path: ['clientCa'], kind: 'file' },
  { path: ['clientCrl'], kind: 'file' },
];

/** All keys that name a file or a variable. */
const REFERENCES: readonly Reference[] = [
  ...UPSTREAM_REFERENCES.map(({ path, kind }) => ({ path: ['upstreams', '*', ...path], kind })),
  ...['server', 'operations'].flatMap((side) =>
    TLS_FILES.map(({ path, kind }) => ({ path: [side, 'tls', ...path], kind })),
  ),
  { path: ['access', 'users', 'htpasswd'], kind: 'private file' },
  { path: ['access', 'tokens'], kind: 'private file' },
  { path: ['access', 'signingKey', 'file'], kind: 'private file' },
  { path: ['access', 'oidc', '*', 'jwks'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'ca'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'token', 'file'], kind: 'private file' },
];

/** Makes the paths absolute, except that of the cache directory. Changes `data`. */
export function makePathsAbsolute(data: unknown, cwd: string): void {
  for (const { kind, holder, key, name } of references(data)) {
    // Leaves to the schema what it refuses. Made absolute, an empty path would be `cwd`, and `~` a folder in it.
    if (kind !== 'secret variable' && name !== '' && !isOfShell(name)) holder[key] = resolve(cwd, name);
  }
}

/** Environment variables that are not set or empty, and files that cannot be read. */
export async function referenceIssues(data: unknown, environment: Environment): Promise<Issue[]> {
  const issues: Issue[] = [];
  for (const { path, kind, name } of references(data)) {
    try {
      if (kind === 'file' || kind === 'private file') await readFile(name);
      else await new Secret(kind === 'secret file' ? { file: name } : { env: name }, environment).read();
    } catch (error) {
      const message =
        error instanceof SecretError ? error.message : `file cannot be read: ${whyUnreadable(error).reason}`;
      issues.push({ path, part: 'value', message });
    }
  }
  return issues;
}

/** The files with secrets. @param data with absolute paths */
export function secretFiles(data: unknown): { path: PropertyKey[]; file: string }[] {
  return [...references(data)]
    .filter(({ kind }) => kind === 'private file' || kind === 'secret file')
    .map(({ path, name }) => ({ path, file: name }));
}

function* references(data: unknown) {
  for (const { path, kind } of REFERENCES) {
    const key = path.at(-1) ?? '';
    for (const { at, value: holder } of places(data, path.slice(0, -1))) {
      const name = isRaw(holder) ? holder[key] : undefined;
      if (isRaw(holder) && typeof name === 'string') yield { path: [...at, key], kind, holder, key, name };
    }
  }
}

/** All places that `path` leads to. */
function places(data: unknown, path: readonly string[]): { at: PropertyKey[]; value: unknown }[] {
  let found: { at: PropertyKey[]; value: unknown }[] = [{ at: [], value: data }];
  for (const step of path) {
    found = found.flatMap(({ at, value }) => {
      const entries: [PropertyKey, unknown][] = Array.isArray(value)
        ? [...value.entries()]
        : isRaw(value)
          ? Object.entries(value)
          : [];
      return entries
        .filter(([key]) => step === '*' || key === step)
        .map(([key, inner]) => ({ at: [...at, key], value: inner }));
    });
  }
  return found;
}
