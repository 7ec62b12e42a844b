/** Names upstreams for all nodes of a fleet. */
import type { UpstreamConfig } from '../../config/schema.ts';
import { upstreamKey } from '../../fleet/objects/names.ts';
import type { FleetSecret } from '../../fleet/records/fleet-secret.ts';
import type { OwnWay } from '../../fleet/relay/relay-route.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Credentials } from '../../upstream/auth/credentials.ts';

/** The upstreams as they are now. */
export interface OwnUpstreams {
  names: () => Iterable<string>;
  of: (name: string) => UpstreamConfig | undefined;
  /** Who logs in. @throws {Error} it cannot be read */
  credentials: (name: string, config: UpstreamConfig) => Promise<Credentials | undefined>;
  /** The way to it, without the fleet. Undefined: there is none of that name any more. */
  wayTo: (name: string) => (OwnWay & { segments: number }) | undefined;
}

export interface UpstreamKeysContext {
  logger: Logger;
  upstreams: () => OwnUpstreams;
}

/** Whoever logs in decides what can be pulled: nodes that log in as others share neither tags nor permissions. */
export function upstreamKeys(
  secret: FleetSecret,
  { upstreams, logger }: UpstreamKeysContext,
): (upstream: string) => Promise<string | undefined> {
  const keys = new WeakMap<UpstreamConfig, Promise<string | undefined>>();
  const keyOf = async (name: string, config: UpstreamConfig): Promise<string | undefined> => {
    try {
      const credentials = await upstreams().credentials(name, config);
      const identity = credentials === undefined ? '' : await identityOf(credentials, secret);
      return upstreamKey({ name, url: config.url, identity });
    } catch (error) {
      keys.delete(config); // looked at again by the next request
      logger.warn(
        { err: error, upstream: name },
        'it is not known who logs in, so that nothing of it is shared',
      );
      return undefined;
    }
  };
  return async (name) => {
    const config = upstreams().of(name);
    if (config === undefined) return undefined;
    const known = keys.get(config) ?? keyOf(name, config);
    keys.set(config, known);
    return known;
  };
}

/** A token has no name. Its fingerprint tells it from others, and nothing else of it. */
async function identityOf(credentials: Credentials, secret: FleetSecret): Promise<string> {
  return 'username' in credentials
    ? credentials.username
    : secret.fingerprint(Object.values(credentials).join(''));
}
