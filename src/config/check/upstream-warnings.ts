/** Warnings about upstreams, and about credentials on their way. Pure. */
import { formatDuration } from '../fields/units.ts';
import type { Config, UpstreamConfig } from '../schema.ts';
import { covers } from './patterns.ts';
import { type Warning, warning } from './warning.ts';

export function upstreamWarnings({ upstreams }: Config): Warning[] {
  return [...upstreams].flatMap(([name, upstream]) => [
    ...upstreamCredentials(name, upstream),
    ...proxyPassword(name, upstream),
    ...freshness(name, upstream),
  ]);
}

/** Passwords and tokens of clients, and those that issuers of tokens are asked with. */
export function accessWarnings({ access, server, operations }: Config): Warning[] {
  if (access === undefined) return [];
  const open = [server, operations].filter(
    ({ listen, tls }) => tls === undefined && 'host' in listen && !isThisMachine(listen.host),
  );
  const ofClients =
    access.insecure && open.length > 0
      ? [plain(['access', 'insecure'], 'lets clients send passwords and tokens')]
      : [];
  const ofIssuers = access.oidc.flatMap(({ issuer, token }, at) =>
    token !== undefined && isPlain(issuer)
      ? [plain(['access', 'oidc', at, 'issuer'], 'is sent the token of this issuer')]
      : [],
  );
  return [...ofClients, ...ofIssuers];
}

function upstreamCredentials(name: string, { credentials, url, fallbackUrls }: UpstreamConfig): Warning[] {
  if (credentials === 'none') return [];
  const places = [
    { path: ['upstreams', name, 'url'], url },
    ...fallbackUrls.map((fallback, at) => ({ path: ['upstreams', name, 'fallbackUrls', at], url: fallback })),
  ];
  return places
    .filter((place) => isPlain(place.url))
    .map(({ path }) => plain(path, 'is sent the credentials of this upstream'));
}

function proxyPassword(name: string, { proxy }: UpstreamConfig): Warning[] {
  if (typeof proxy !== 'object' || !isPlain(proxy.url)) return [];
  return [plain(['upstreams', name, 'proxy', 'url'], 'is sent its password')];
}

function freshness(name: string, { freshness: { tagTtl, repositories } }: UpstreamConfig): Warning[] {
  const above = ['upstreams', name, 'freshness'];
  const ttls = [
    { path: [...above, 'tagTtl'], ttl: tagTtl },
    ...repositories.map((entry, at) => ({
      path: [...above, 'repositories', at, 'tagTtl'],
      ttl: entry.tagTtl,
    })),
  ];
  const asked = `${formatDuration(0)} asks upstream at each pull of a tag: all of them wait for it, and count against its rate limit`;
  return [
    ...ttls.filter(({ ttl }) => ttl === 0).map(({ path }) => warning('zero-tag-ttl', path, asked)),
    ...repositories.flatMap(({ match }, at) => {
      const before = repositories.slice(0, at).find((earlier) => covers(earlier.match, match));
      if (before === undefined) return [];
      const what = `never applies, because the entry for ${before.match} before it matches the same repositories: move it up, or remove it`;
      return [warning('unreachable-pattern', [...above, 'repositories', at, 'match'], what)];
    }),
  ];
}

function plain(path: Warning['issue']['path'], what: string): Warning {
  const advice = 'without TLS: everybody on the way can read them; use https:// or a certificate';
  return warning('credentials-without-tls', path, `${what} ${advice}`);
}

/** Whether what is sent there can be read on its way. */
function isPlain(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === 'http:' && !isThisMachine(hostname.replace(/^\[|\]$/g, ''));
}

function isThisMachine(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}
