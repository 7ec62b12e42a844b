/**
 * The configuration as it was read, before anything is known to be right about it. What the schema cannot say is done
 * here, so that its problems are found in the same pass as all others: rules between upstreams, and what lies outside.
 */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parseImageName } from '../oci/image-name.ts';
import { SecretError } from './errors.ts';
import { DEFAULT_UPSTREAM, DEFAULT_UPSTREAMS, PRESETS } from './file/presets.ts';
import { type Environment, Secret, whyUnreadable } from './secrets.ts';

/** One thing that is wrong, by its place in the data. */
export interface Issue {
  path: readonly PropertyKey[];
  /** What of the place is wrong. */
  part: 'key' | 'value';
  message: string;
}

type Raw = Record<string, unknown>;

// `server:` with all of its keys commented out is a section of defaults, not an error.
const SECTIONS = ['server', 'operations', 'cache', 'log'];

/** The data with what depends on an upstream's name filled in. A copy, except for what is not filled in. */
export function withPresets(data: unknown): unknown {
  const root = data ?? {};
  if (!isRaw(root)) return root;
  const filled = Object.fromEntries(
    Object.entries(root).filter(([key, value]) => value !== null || !SECTIONS.includes(key)),
  );
  const upstreams = Object.hasOwn(root, 'upstreams')
    ? (root['upstreams'] ?? {})
    : Object.fromEntries(DEFAULT_UPSTREAMS.map((host) => [host, {}]));
  filled['upstreams'] = isRaw(upstreams)
    ? Object.fromEntries(
        Object.entries(upstreams).map(([host, entry]) => [host, withPreset(host, entry ?? {})]),
      )
    : upstreams;
  return filled;
}

function withPreset(host: string, entry: unknown): unknown {
  if (!isRaw(entry)) return entry;
  const { freshness, rateLimit, ...rest } = entry;
  const filled: Raw = { url: `https://${host}`, ...PRESETS.get(host), ...rest };
  for (const [key, value] of Object.entries({ freshness, rateLimit }))
    if (value !== undefined && value !== null) filled[key] = value;
  return filled;
}

/** Names that mean two upstreams, and a default upstream that is none. */
export function nameIssues(data: unknown): Issue[] {
  const issues: Issue[] = [];
  const upstreamByName = new Map<string, string>();
  const imageHosts = new Set(isRaw(data) && isRaw(data['upstreams']) ? Object.keys(data['upstreams']) : []);
  const claim = (name: unknown, upstream: string, path: Issue['path'], part: Issue['part']) => {
    if (typeof name !== 'string') return;
    const owner = upstreamByName.get(name) ?? upstream;
    upstreamByName.set(name, owner);
    if (owner === upstream) return;
    issues.push({ path, part, message: `${name} is already a name of upstream ${owner}` });
  };
  for (const [host, entry] of upstreamEntries(data)) {
    claim(host, host, ['upstreams', host], 'key');
    for (const key of ['aliases', 'hosts']) {
      const names: unknown = entry[key];
      if (!Array.isArray(names)) continue;
      for (const [index, name] of names.entries()) {
        claim(name, host, ['upstreams', host, key, index], 'value');
        if (key === 'aliases' && typeof name === 'string') imageHosts.add(name);
      }
    }
  }
  return [...issues, ...defaultUpstreamIssues(data, imageHosts), ...warmIssues(data, imageHosts)];
}

function defaultUpstreamIssues(data: unknown, imageHosts: ReadonlySet<string>): Issue[] {
  if (!isRaw(data) || !isRaw(data['upstreams'])) return [];
  const chosen = data['defaultUpstream'];
  if (typeof chosen === 'string' && !imageHosts.has(chosen)) {
    const message = `must be one of upstreams or of their aliases, got ${JSON.stringify(chosen)}`;
    return [{ path: ['defaultUpstream'], part: 'value', message }];
  }
  if (chosen === undefined && !imageHosts.has(DEFAULT_UPSTREAM)) {
    const message = `must have ${DEFAULT_UPSTREAM}, or defaultUpstream must name one of them`;
    return [{ path: ['upstreams'], part: 'key', message }];
  }
  return [];
}

/** Images to be warmed that no upstream has. */
function warmIssues(data: unknown, imageHosts: ReadonlySet<string>): Issue[] {
  const entries: unknown = isRaw(data) ? data['warm'] : undefined;
  if (!Array.isArray(entries)) return [];
  return entries.flatMap((entry: unknown, at) => {
    const images: unknown = isRaw(entry) ? entry['images'] : undefined;
    if (!Array.isArray(images)) return [];
    return images.flatMap((image: unknown, index): Issue[] => {
      const host = typeof image === 'string' ? parseImageName(image)?.host : undefined;
      if (host === undefined || imageHosts.has(host)) return [];
      const message = `${host} is not one of upstreams, nor one of their aliases`;
      return [{ path: ['warm', at, 'images', index], part: 'value', message }];
    });
  });
}

/** The keys of an upstream that name something outside of the configuration. */
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

/** Makes the files that upstreams name absolute, in place. */
export function makePathsAbsolute(data: unknown, cwd: string): void {
  for (const { kind, holder, key, name } of references(data)) {
    // An empty path stays what it is, for the schema to refuse: made absolute it would be the folder itself.
    if (kind !== 'secret variable' && name !== '') holder[key] = resolve(cwd, name);
  }
}

/** Environment variables that are not set, and files that cannot be read. */
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

function upstreamEntries(data: unknown): [string, Raw][] {
  const upstreams = isRaw(data) ? data['upstreams'] : undefined;
  if (!isRaw(upstreams)) return [];
  return Object.entries(upstreams).filter((entry): entry is [string, Raw] => isRaw(entry[1]));
}

function isRaw(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
