/** The public registries: with a preset, the host alone is enough to configure an upstream. */
import { isRaw, type Raw } from './raw.ts';

interface Preset {
  url: string;
  /** Other hosts of this registry in image references. */
  aliases?: readonly string[];
  /** Hosts of its token servers outside its own registrable domain. */
  realmHosts?: readonly string[];
}

const PRESETS: ReadonlyMap<string, Preset> = new Map<string, Preset>([
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

/** The upstreams of a configuration that has no `upstreams`. */
const DEFAULT_UPSTREAMS: readonly string[] = ['docker.io', 'ghcr.io', 'quay.io'];

/** The upstream of a name without a host, unless the configuration says otherwise. */
export const DEFAULT_UPSTREAM = 'docker.io';

// Accepts a section without content, such as `server:` with all of its keys commented out, as its defaults.
const SECTIONS = ['server', 'operations', 'cache', 'log'];

/** Fills in the defaults that depend on the host of an upstream. What needs none is shared with `data`, not copied. */
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
