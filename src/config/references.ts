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
  ...[
    ['deny', 'digests', '*'],
    ['signature', 'cosign', 'keys', '*'],
    ['signature', 'cosign', 'transparencyLog', 'trustedRoot'],
    ['signature', 'keyless', 'trustedRoot'],
    ['signature', 'notation', 'trustStore', '*'],
    ['scan', 'tls', 'certificate'],
  ].map((path): Reference => ({ path: ['policies', '*', ...path], kind: 'file' })),
  { path: ['policies', '*', 'scan', 'tls', 'key'], kind: 'private file' },
  { path: ['policies', '*', 'scan', 'environment', '*'], kind: 'secret variable' },
  ...['accessKeyId', 'secretAccessKey'].flatMap((key): Reference[] => [
    { path: ['fleet', 'objects', 'credentials', key, 'env'], kind: 'secret variable' },
    { path: ['fleet', 'objects', 'credentials', key, 'file'], kind: 'secret file' },
  ]),
  { path: ['fleet', 'objects', 'ca'], kind: 'file' },
  { path: ['fleet', 'coordinator', 'password', 'env'], kind: 'secret variable' },
  { path: ['fleet', 'coordinator', 'password', 'file'], kind: 'secret file' },
  { path: ['fleet', 'coordinator', 'ca'], kind: 'file' },
  { path: ['fleet', 'tls', 'certificate'], kind: 'file' },
  { path: ['fleet', 'tls', 'key'], kind: 'private file' },
  { path: ['fleet', 'tls', 'ca'], kind: 'file' },
  { path: ['fleet', 'secret', 'file'], kind: 'private file' },
  { path: ['access', 'users', 'htpasswd'], kind: 'private file' },
  { path: ['access', 'tokens'], kind: 'private file' },
  { path: ['access', 'signingKey', 'file'], kind: 'private file' },
  { path: ['access', 'oidc', '*', 'jwks'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'ca'], kind: 'file' },
  { path: ['access', 'oidc', '*', 'token', 'file'], kind: 'private file' },
];

/** Makes the paths absolute, except that of the cache directory. Changes `data`. */
export function makePathsAbsolute(data: unknown, cwd: string): void {
  for (const { kind, name, replace } of references(data)) {
    // Leaves to the schema what it refuses. Made absolute, an empty path would be `cwd`, and `~` a folder in it.
    if (kind !== 'secret variable' && name !== '' && !isOfShell(name)) replace(resolve(cwd, name));
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
    for (const { at, value: name, replace } of places(data, path)) {
      if (typeof name === 'string') yield { path: at, kind, name, replace };
    }
  }
}

interface Place {
  at: PropertyKey[];
  value: unknown;
  /** Puts another value in its place. */
  replace: (value: unknown) => void;
}

/** All places that `path` leads to. */
function places(data: unknown, path: readonly string[]): Place[] {
  let found: Place[] = [{ at: [], value: data, replace: () => undefined }];
  for (const step of path) {
    found = found.flatMap(({ at, value }) =>
      entriesOf(value)
        .filter(([key]) => step === '*' || key === step)
        .map(([key, inner]) => ({
          ...{ at: [...at, key], value: inner },
          replace: (other) => void (isCollection(value) && Reflect.set(value, key, other)),
        })),
    );
  }
  return found;
}

function entriesOf(value: unknown): [PropertyKey, unknown][] {
  if (Array.isArray(value)) return [...value.entries()];
  return isRaw(value) ? Object.entries(value) : [];
}

function isCollection(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
