/** Which upstream a registry host means. */
import type { Config } from './schema.ts';

/** Names of upstreams by their names and aliases, in lower case. */
export function upstreamByHost({ upstreams }: Pick<Config, 'upstreams'>): ReadonlyMap<string, string> {
  return new Map(
    [...upstreams].flatMap(([name, { aliases }]) =>
      [name, ...aliases].map((host) => [host.toLowerCase(), name] as const),
    ),
  );
}
