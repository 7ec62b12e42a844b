/** What is known about the public registries, so that naming one is enough to configure it. */
import { isRaw, type Raw } from './raw.ts';

export interface Preset {
  url: string;
  /** Other hosts that mean this registry in image references. */
  aliases?: readonly string[];
  /** Hosts outside the registry's registrable domain that its challenges send clients to for a token. */
  realmHosts?: readonly string[];
}

export const PRESETS: ReadonlyMap<string, Preset> = new Map<string, Preset>([
  [
    'docker.io',
    { url: 'https://registry-1.docker.io', aliases: ['index.docker.io', 'registry-1.docker.io'] },
  ],
  ['ghcr.io', { url: 'https://ghcr.io' }],
  ['quay.io', { url: 'https://quay.io' }],
  ['registry.k8s.io', { url: 'https://registry.k8s.io' }],
  ['gcr.io', { url: 'https://gcr.io' }],
  ['mcr.microsoft.com', { url: 'https://mcr.microsoft.com' }],
  ['public.ecr.aws', { url: 'https://public.ecr.aws' }],
  ['registry.gitlab.com', { url: 'https://registry.gitlab.com' }],
  ['nvcr.io', { url: 'https://nvcr.io', realmHosts: ['authn.nvidia.com'] }],
]);

/** The upstreams of a configuration that names none. */
export const DEFAULT_UPSTREAMS: readonly string[] = ['docker.io', 'ghcr.io', 'quay.io'];

/** The upstream that a name without a host means, unless the configuration says otherwise. */
export const DEFAULT_UPSTREAM = 'docker.io';

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
