/** The configuration: every key, its meaning, its default, and the type that the program gets. */
import * as z from 'zod';
import { referenceHost } from './fields/addresses.ts';
import { wrongType } from './fields/codec.ts';
import { flag, section } from './fields/plain.ts';
import { DEFAULT_UPSTREAM } from './file/presets.ts';
import { cacheSchema } from './sections/cache.ts';
import { logSchema } from './sections/log.ts';
import { operationsSchema, serverSchema } from './sections/server.ts';
import { upstreamSchema } from './sections/upstream.ts';
import { warmSchema } from './sections/warm.ts';

/** One upstream registry. Times in milliseconds, URLs without a slash at the end. */
export type UpstreamConfig = z.output<typeof upstreamSchema>;

export const configSchema = section({
  server: serverSchema,
  operations: operationsSchema,
  cache: cacheSchema,
  defaultUpstream: referenceHost()
    .prefault(DEFAULT_UPSTREAM)
    .describe('The upstream that a bare /v2/<name> means; one of upstreams or of their aliases.'),
  sealed: flag().prefault(false).describe('Never open an outgoing connection.'),
  upstreams: z
    .codec(
      z.record(referenceHost(), upstreamSchema, { error: wrongType('a map from hosts to settings') }),
      z.custom<ReadonlyMap<string, UpstreamConfig>>(),
      { decode: (record) => new Map(Object.entries(record)), encode: (map) => Object.fromEntries(map) },
    )
    .describe('By the host in an image reference; nothing else can be reached through the mirror.'),
  warm: warmSchema,
  log: logSchema,
});

/**
 * A complete, valid configuration. Times in milliseconds, sizes in bytes, paths absolute;
 * `upstreams` in the order of the file.
 */
export type Config = z.output<typeof configSchema>;
