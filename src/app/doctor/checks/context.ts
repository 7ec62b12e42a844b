/** What the checks of one upstream share. */
import type { Clock } from '../../../clock.ts';
import type { UpstreamConfig } from '../../../config/schema.ts';
import type { AuthenticatedTransportSettings } from '../../../upstream/auth/authenticated-transport.ts';
import type { Proxy } from '../../../upstream/network/proxy-rule.ts';
import type { Transport } from '../../../upstream/network/transport.ts';

export interface Endpoint {
  /** Of the upstream. */
  name: string;
  url: URL;
  config: UpstreamConfig;
  settings: AuthenticatedTransportSettings;
  transport: Transport;
  /** Absent: the connection is direct. */
  proxy: Proxy | undefined;
  clock: Clock;
}

/** The name or address of a URL's host, without brackets. */
export function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, '');
}

export function portOf({ port, protocol }: URL): number {
  return port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);
}

/** The key that decides about the proxy, for advice. */
export function proxyKey({ name, config }: Pick<Endpoint, 'name' | 'config'>): string {
  return config.proxy === undefined ? 'HTTPS_PROXY and HTTP_PROXY' : `upstreams.${name}.proxy`;
}

/** Context of a request of the transport. */
export function requestContext(signal: AbortSignal) {
  return { id: 'doctor', identity: { kind: 'operator' }, signal } as const;
}
