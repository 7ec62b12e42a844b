/** Creates an upstream from its part of the configuration. */
import { readFile } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import type { Config, UpstreamConfig } from '../config/schema.ts';
import { type Environment, Secret } from '../config/secrets.ts';
import type { FreshnessPolicy } from '../mirror/freshness.ts';
import { imagePattern, type Repository } from '../oci/reference.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { AuthenticatedTransportSettings } from '../upstream/auth/authenticated-transport.ts';
import { acrCredentials, ecrCredentials } from '../upstream/auth/cloud-credentials.ts';
import { helperCredentials } from '../upstream/auth/credential-helper.ts';
import type { CredentialProvider } from '../upstream/auth/credentials.ts';
import { dockerConfigCredentials, serverOf } from '../upstream/auth/docker-config.ts';
import { UpstreamClient } from '../upstream/client/client.ts';
import { SealableUpstream } from '../upstream/client/seal.ts';
import type { Bandwidth, BandwidthLimits } from '../upstream/limits/bandwidths.ts';
import { PullQuota } from '../upstream/limits/pull-quota.ts';
import { ResilientUpstream } from '../upstream/limits/resilience.ts';
import type { SharedLimits } from '../upstream/limits/shared-limits.ts';
import { type ProxyRule, proxyForAll, proxyFromEnvironment } from '../upstream/network/proxy-rule.ts';
import type { Identity } from '../upstream/network/transport.ts';

export interface UpstreamsContext {
  environment: Environment;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  random: () => number;
  identity: Identity;
  /** What other mirrors know of the limits of an upstream. Absent: none counts as one with this one. */
  sharedLimits?: ((upstream: string) => SharedLimits | undefined) | undefined;
}

/** Creates one upstream, sealed. No file is read and no connection opened before the seal is lifted. */
export function sealedUpstream(
  name: string,
  config: UpstreamConfig,
  context: UpstreamsContext & { bandwidth: Bandwidth },
): SealableUpstream<ResilientUpstream> {
  return new SealableUpstream(name, () => createUpstream(name, config, context));
}

/** The limits that a configuration sets, for {@link Bandwidths.setLimits}. */
export function bandwidthLimits({ server, upstreams }: Config): BandwidthLimits {
  return {
    server: server.maxUpstreamBandwidth ?? undefined,
    upstreams: new Map([...upstreams].map(([name, { maxBandwidth }]) => [name, maxBandwidth ?? undefined])),
  };
}

async function createUpstream(
  name: string,
  config: UpstreamConfig,
  context: UpstreamsContext & { bandwidth: Bandwidth },
): Promise<ResilientUpstream> {
  const settings = await upstreamSettings(name, config, context);
  const urls = [config.url, ...config.fallbackUrls];
  const sharedLimits = context.sharedLimits?.(name);
  const quota = new PullQuota(config.rateLimit.reserve, context.clock, sharedLimits);
  const clients = urls.map((url) => new UpstreamClient({ ...settings, url }, { ...context, quota }));
  return new ResilientUpstream(name, clients, { ...context, quota, sharedLimits });
}

/**
 * What the requests to an upstream need to know, but for the URL, of which it may have several.
 *
 * @throws {Error} a file cannot be read, or the environment names a proxy that cannot be used
 */
export async function upstreamSettings(
  name: string,
  config: UpstreamConfig,
  context: { environment: Environment; clock: Clock },
): Promise<Omit<AuthenticatedTransportSettings, 'url'>> {
  const { ca, clientCertificate } = config;
  return {
    name,
    realmHosts: config.realmHosts,
    credentials: credentialProvider(name, config, context),
    ...(ca === undefined ? {} : { ca: await readFile(ca, 'utf8') }),
    ...(clientCertificate === undefined
      ? {}
      : { clientCertificate: await readCertificate(clientCertificate) }),
    proxyFor: proxyRule(config, context.environment),
    allowPrivateAddresses: config.allowPrivateAddresses,
    maxConnections: config.maxConnections,
    connectTimeoutMs: config.connectTimeout,
    headersTimeoutMs: config.headersTimeout,
    bodyTimeoutMs: config.bodyTimeout,
  };
}

async function readCertificate(paths: { cert: string; key: string }): Promise<{ cert: string; key: string }> {
  return { cert: await readFile(paths.cert, 'utf8'), key: await readFile(paths.key, 'utf8') };
}

/** Who logs in to an upstream, and how. */
export function credentialProvider(
  name: string,
  { credentials, url, aliases }: UpstreamConfig,
  { environment, clock }: { environment: Environment; clock: Clock },
): CredentialProvider {
  if (credentials === 'none') return async () => undefined;
  const { host } = new URL(url);
  if ('dockerConfig' in credentials) {
    const file = new Secret({ file: credentials.dockerConfig }, environment);
    return dockerConfigCredentials({
      read: () => file.read(),
      hosts: [...new Set([name, host, ...aliases])],
      helper: (helper, server) => helperCredentials(helper, server, { environment, clock }),
    });
  }
  if ('helper' in credentials) {
    const server = name === 'docker.io' ? serverOf(name) : host;
    return helperCredentials(credentials.helper, server, { environment, clock });
  }
  const cloud = { clock, importPackage: (specifier: string) => import(specifier) as Promise<unknown> };
  if ('ecr' in credentials) return ecrCredentials({ host, region: credentials.ecr.region }, cloud);
  if ('acr' in credentials) return acrCredentials(cloud);
  if ('identityToken' in credentials) {
    const token = new Secret(credentials.identityToken, environment);
    return async () => ({ identityToken: await token.read() });
  }
  const { username } = credentials;
  const user =
    typeof username === 'string' ? { read: async () => username } : new Secret(username, environment);
  const password = new Secret(credentials.password, environment);
  return async () => ({ username: await user.read(), password: await password.read() });
}

function proxyRule({ proxy }: UpstreamConfig, environment: Environment): ProxyRule {
  if (proxy === undefined) return proxyFromEnvironment(environment);
  if (proxy === 'none') return () => undefined;
  if (typeof proxy === 'string') return proxyForAll(proxy);
  const password = new Secret(proxy.password, environment);
  return proxyForAll(proxy.url, () => password.read());
}

/** The first entry of `repositories` that matches overrides the settings of the upstream. */
export function freshnessFor({ freshness }: UpstreamConfig): (repository: Repository) => FreshnessPolicy {
  const common = freshnessPolicy(freshness);
  const policies = freshness.repositories.map(({ match, ...own }) => {
    const known = Object.entries(own).filter(([, value]) => value !== undefined);
    return {
      match: imagePattern(match),
      policy: freshnessPolicy({ ...freshness, ...Object.fromEntries(known) }),
    };
  });
  return (repository) => policies.find(({ match }) => match.test(repository))?.policy ?? common;
}

function freshnessPolicy(settings: UpstreamConfig['freshness']): FreshnessPolicy {
  return {
    tagTtlMs: settings.tagTtl,
    immutableTags: settings.immutableTags,
    staleWhileRevalidateMs: settings.staleWhileRevalidate,
    staleIfErrorMs: settings.staleIfError,
    onTagDeleted: settings.onTagDeleted,
    negativeTtlMs: settings.negativeTtl,
  };
}
