/** What is known about the public registries, so that naming one is enough to configure it. */

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
