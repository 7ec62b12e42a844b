/** What a scenario is made of. */
import type { MoreConfig, PeerName, Server, VersionName } from './peers.ts';
import type { Upstream } from './upstream-control.ts';

/** One run's figures, by metric; the metric's name ends in its unit. */
export type Sample = Record<string, number>;

export interface Lab {
  upstream: Upstream;
  /** Tiny sizes: to prove that it runs. */
  smoke: boolean;
  /** Removed when the scenario is over. */
  directory: string;
  servers: Partial<Record<PeerName | VersionName, Server>>;
  /** One more Millpond of the checkout that `server` runs, on a directory of its own; the caller stops it. */
  startAnother(server: Server, directory: string, more: MoreConfig): Promise<Server>;
}

type Limit =
  | { factor: number; of: PeerName }
  /** Of the metric itself, whoever else does what. */
  | { value: number };

/** What Millpond must reach: its median of `metric` against a peer's median, or against a figure. */
export interface Target {
  /** Whose median it is; Millpond's, if not said. */
  of?: PeerName;
  metric: string;
  relation: '≤' | '≥';
  limit: Limit;
}

export interface Scenario {
  name: string;
  /** One line: what is done, and how large. */
  does: string;
  peers: readonly PeerName[];
  /** A program besides those of the peers. */
  needs?: string;
  /** What else is not here that it needs, and how to get it; undefined: nothing. */
  missing?(): string | undefined;
  /** The path whose reply `bare` imitates: a warm one, after {@link prepare}. */
  bareExample?(lab: Lab): Promise<string>;
  /** Once, when the servers run. */
  prepare?(lab: Lab): Promise<void>;
  /** Stops what {@link prepare} has started. */
  finish?(lab: Lab): Promise<void>;
  /** Every measurement starts a server anew, so there is nothing to warm up. */
  startsAnew?: true;
  /** Once a run for each server, in turns. Unless {@link startsAnew}, the first run of each is not counted. */
  measure(lab: Lab, server: Server): Promise<Sample>;
  /** For the table, in this order; the file of results has all metrics. */
  shows: readonly string[];
  targets: readonly Target[];
}
