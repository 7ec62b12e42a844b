/** The files and environment variables that the configuration names. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { SecretError } from './errors.ts';
import { type Issue, isRaw } from './file/raw.ts';
import { type Environment, Secret, whyUnreadable } from './secrets.ts';

type Kind = 'file' | 'secret file' | 'secret variable';

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
  { path: ['credentials', 'dockerConfig'], kind: 'file' },
  { path: ['proxy', 'password', 'env'], kind: 'secret variable' },
  { path: ['proxy', 'password', 'file'], kind: 'secret file' },
  { path: ['ca'], kind: 'file' },
  { path: ['clientCertificate', 'cert'], kind: 'file' },
  { path: ['clientCertificate', 'key'], kind: 'file' },
];

const TLS_FILES = ['certificate', 'key', 'clientCa', 'clientCrl'];

/** All keys that name a file or a variable. */
const REFERENCES: readonly Reference[] = [
  ...UPSTREAM_REFERENCES.map(({ path, kind }) => ({ path: ['upstreams', '*', ...path], kind })),
  ...['server', 'operations'].flatMap((side) =>
    TLS_FILES.map((key): Reference => ({ path: [side, 'tls', key], kind: 'file' })),
  ),
  { path: ['access', 'users', 'htpasswd'], kind: 'file' },
  { path: ['access', 'tokens'], kind: 'file' },
  { path: ['access', 'signingKey', 'file'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'jwks'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'ca'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'token', 'file'], kind: 'file' },
];

/** Makes the paths absolute, except that of the cache directory. Changes `data`. */
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
