/** The upstreams of the configuration in use. A reload replaces those that have changed; all others keep their state. */
import { isDeepStrictEqual } from 'node:util';
import type { Config, UpstreamConfig } from '../config/schema.ts';
import { upstreamByHost } from '../config/upstream-names.ts';
import type { Routing } from '../http/registry/pulls.ts';
import { RequestParser, type RoutingTable } from '../http/registry/routes.ts';
import { Seal, type SealableUpstream } from '../upstream/client/seal.ts';
import { Bandwidths } from '../upstream/limits/bandwidths.ts';
import type { ResilientUpstream, UpstreamCondition } from '../upstream/limits/resilience.ts';
import type { Upstream } from '../upstream/upstream.ts';
import {
  bandwidthLimits,
  credentialProvider,
  freshnessFor,
  sealedUpstream,
  type UpstreamsContext,
} from './upstreams.ts';

interface Entry {
  config: UpstreamConfig;
  client: SealableUpstream<ResilientUpstream>;
}

export interface LiveUpstreamsContext extends UpstreamsContext {
  /** Puts what a fleet has before an upstream. Absent: the mirror is alone. */
  share?: ((upstream: SealableUpstream) => Upstream) | undefined;
}

export class LiveUpstreams {
  readonly seal: Seal;
  readonly bandwidths: Bandwidths;
  readonly #context: LiveUpstreamsContext;
  #entries: ReadonlyMap<string, Entry>;
  #table: RoutingTable;
  #routing: Routing;

  /** Creates all upstreams, sealed. */
  constructor(config: Config, context: LiveUpstreamsContext) {
    this.#context = context;
    this.bandwidths = new Bandwidths(context);
    this.bandwidths.setLimits(bandwidthLimits(config));
    this.#entries = this.#entriesFor(config, new Map());
    this.#table = routingTable(config);
    this.#routing = this.#routingOf(this.#table, this.#entries);
    this.seal = new Seal(clientsOf(this.#entries));
  }

  get routing(): Routing {
    return this.#routing;
  }

  /** The name of the upstream that a host in an image name means; undefined if none is configured. */
  nameOf(host: string): string | undefined {
    return this.#table.upstreamByHost.get(host);
  }

  /** For a fleet, which names upstreams for all its nodes. */
  readonly forFleet = {
    names: () => this.#entries.keys(),
    of: (name: string) => this.#entries.get(name)?.config,
    /** Who logs in. @throws {Error} it cannot be read */
    credentials: (name: string, config: UpstreamConfig) => credentialProvider(name, config, this.#context)(),
    wayTo: (name: string) => {
      const entry = this.#entries.get(name);
      const bandwidth = this.bandwidths.of(name);
      return entry && { upstream: entry.client, segments: entry.config.segments, bandwidth };
    },
  };

  /** What is known of each upstream; undefined while it is sealed. */
  *conditions(): Generator<[name: string, UpstreamCondition | undefined]> {
    for (const [name, { client }] of this.#entries) yield [name, client.client?.condition()];
  }

  /**
   * Uses the upstreams of another configuration. Pulls that run from one that is gone or has changed go on as they began.
   *
   * @throws if a new one cannot be created, for example if its `ca` cannot be read: then nothing has changed
   */
  async use(config: Config): Promise<void> {
    const before = this.#entries;
    const entries = this.#entriesFor(config, before);
    await this.seal.replace(clientsOf(entries));
    this.bandwidths.setLimits(bandwidthLimits(config));
    this.#entries = entries;
    this.#table = routingTable(config);
    this.#routing = this.#routingOf(this.#table, entries);
    for (const upstream of before.keys()) {
      if (!entries.has(upstream)) this.#context.metrics.forgetUpstream(upstream);
    }
  }

  #entriesFor({ upstreams }: Config, before: ReadonlyMap<string, Entry>): Map<string, Entry> {
    return new Map(
      [...upstreams].map(([name, config]) => {
        const old = before.get(name);
        const kept = old !== undefined && isSameClient(old.config, config);
        return [name, { config, client: kept ? old.client : this.#create(name, config) }];
      }),
    );
  }

  #routingOf(table: RoutingTable, entries: ReadonlyMap<string, Entry>): Routing {
    const share = this.#context.share ?? ((upstream: SealableUpstream): Upstream => upstream);
    const mirrored = [...entries].map(
      ([name, { config, client }]) =>
        [
          name,
          { client: share(client), segments: config.segments, freshnessFor: freshnessFor(config) },
        ] as const,
    );
    return { parser: new RequestParser(table), upstreamByName: new Map(mirrored) };
  }

  #create(name: string, config: UpstreamConfig): SealableUpstream<ResilientUpstream> {
    this.#context.metrics.beginUpstream(name);
    return sealedUpstream(name, config, { ...this.#context, bandwidth: this.bandwidths.of(name) });
  }
}

/** Settings that are not the client's. For a change of these it keeps its connections, its tokens and its quota. */
const NOT_OF_CLIENT = {
  freshness: undefined,
  segments: undefined,
  hosts: undefined,
  maxBandwidth: undefined,
};

function isSameClient(before: UpstreamConfig, now: UpstreamConfig): boolean {
  return isDeepStrictEqual({ ...before, ...NOT_OF_CLIENT }, { ...now, ...NOT_OF_CLIENT });
}

function clientsOf(entries: ReadonlyMap<string, Entry>): SealableUpstream[] {
  return [...entries.values()].map(({ client }) => client);
}

function routingTable(config: Config): RoutingTable {
  const upstreamByVirtualHost = new Map<string, string>();
  for (const [name, { hosts }] of config.upstreams) {
    for (const host of hosts) upstreamByVirtualHost.set(host.toLowerCase(), name);
  }
  const byHost = upstreamByHost(config);
  const defaultUpstream = byHost.get(config.defaultUpstream.toLowerCase()) ?? config.defaultUpstream;
  return { defaultUpstream, upstreamByHost: byHost, upstreamByVirtualHost };
}
