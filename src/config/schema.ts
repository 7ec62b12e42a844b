/** The configuration: every key, its meaning, its default, and the type that the program gets. */
import * as z from 'zod';
import { referenceHost, registryUrl } from './fields/addresses.ts';
import { wrongType } from './fields/codec.ts';
import { flag, section } from './fields/plain.ts';
import { timeout } from './fields/quantities.ts';
import { DEFAULT_UPSTREAM } from './file/presets.ts';
import { accessSchema } from './sections/access.ts';
import { cacheSchema } from './sections/cache.ts';
import { fleetSchema } from './sections/fleet.ts';
import { logSchema } from './sections/log.ts';
import { policiesSchema } from './sections/policies.ts';
import { operationsSchema, serverSchema } from './sections/server.ts';
import { upstreamSchema } from './sections/upstream.ts';
import { warmSchema } from './sections/warm.ts';

/** The settings of one upstream registry. Durations are in milliseconds; URLs have no slash at the end. */
export type UpstreamConfig = z.output<typeof upstreamSchema>;

export const configSchema = section({
  server: serverSchema,
  operations: operationsSchema,
  access: accessSchema,
  cache: cacheSchema,
  fleet: fleetSchema,
  defaultUpstream: referenceHost()
    .prefault(DEFAULT_UPSTREAM)
    .describe(
      'Upstream of a request that names none (a bare /v2/<name>): one of upstreams, or an alias of one.',
    ),
  sealed: flag()
    .prefault(false)
    .describe('Whether to serve only from the cache, and never open an outgoing connection.'),
  watchConfig: flag()
    .prefault(true)
    .describe('Whether to reload this file when it changes. SIGHUP and `millpond reload` always do.'),
  upstreams: z
    .codec(
      z.record(referenceHost(), upstreamSchema, {
        error: wrongType('a map of registry hosts, such as docker.io: {}'),
      }),
      z.custom<ReadonlyMap<string, UpstreamConfig>>(),
      { decode: (record) => new Map(Object.entries(record)), encode: (map) => Object.fromEntries(map) },
    )
    .describe(
      'Registries by their host in image references. No other registry can be reached through the mirror.',
    ),
  policies: policiesSchema,
  policyWait: timeout()
    .prefault('20s')
    .describe('How long a client waits for a decision of policies. containerd gives up after 30s.'),
  notify: registryUrl()
    .optional()
    .describe('A URL that is told by POST of verdicts of policies that have changed.'),
  retryRefused: timeout()
    .prefault('30s')
    .describe(
      'How long a refusal holds. What was missing may have come since, so it is then looked for again.',
    ),
  warm: warmSchema,
  log: logSchema,
});

/**
 * A complete, valid configuration. Durations are in milliseconds, sizes in bytes, and paths are absolute. `upstreams` has
 * the order of the file.
 */
export type Config = z.output<typeof configSchema>;
