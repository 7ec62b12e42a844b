/**
 * The port to what nodes agree on, and what may be lost. Each group of methods has an interface of its own.
 *
 * Correctness never depends on it, only on digests: the worst that a lost or late answer costs is one more fetch.
 */

export interface Coordinator {
  readonly leases: CoordinatedLeases;
  readonly notes: CoordinatedNotes;
  readonly members: CoordinatedMembers;
  readonly limits: CoordinatedLimits;
  /** Idempotent. */
  close(): Promise<void>;
}

export interface ClaimOptions {
  forMs: number;
  /** A holder that need not be respected. */
  instead?: string;
  /** Another lease, whose name begins with the same two characters. */
  also?: string;
}

export interface ClaimAnswer {
  /** Whose the lease is; undefined: the caller's, now. */
  holder: string | undefined;
  /** The caller has the other lease, too. */
  hasBoth: boolean;
}

/** Who fetches or uploads what. All methods throw {EngineError}. */
export interface CoordinatedLeases {
  /**
   * Takes the lease `name` for `holder` if nobody has it, or if `instead` has it: somebody who was found dead. Takes the
   * lease `also` with it, if that is free as well.
   */
  claim(name: string, holder: string, options: ClaimOptions): Promise<ClaimAnswer>;
  /** Makes leases last for `forMs` from now on. @returns those that `holder` has lost */
  renew(names: readonly string[], holder: string, forMs: number): Promise<string[]>;
  /** Gives leases back. Those of others stay. */
  release(names: readonly string[], holder: string): Promise<void>;
}

/** What nodes tell each other at once. All methods throw {EngineError}. */
export interface CoordinatedNotes {
  /** Keeps texts by name in a group for `forMs`, those that are there already too. */
  keep(group: string, texts: ReadonlyMap<string, string>, forMs: number): Promise<void>;
  /** @returns a text, and how long ago it was kept by the coordinator's own clock; milliseconds */
  find(group: string, name: string): Promise<{ text: string; ageMs: number } | undefined>;
}

/** Who is there. All methods throw {EngineError}. */
export interface CoordinatedMembers {
  /**
   * Says that a node is there.
   *
   * @param member replaces what was said of `id` before
   * @returns what all nodes say that have said something within `forMs`, and the coordinator's time; milliseconds since
   *   the epoch
   */
  beat(id: string, member: string, forMs: number): Promise<{ members: string[]; now: number }>;
}

export interface LimitOptions {
  forMs: number;
  /** What is there and lasts longer stays. */
  unlessLonger: boolean;
}

/** What upstreams have said of their limits. All methods throw {EngineError}. */
export interface CoordinatedLimits {
  /** Keeps a text by its name in a group. */
  keep(group: string, name: string, text: string, options: LimitOptions): Promise<void>;
  /** @returns all texts of a group, with when they were kept, and the coordinator's time; milliseconds since the epoch */
  all(group: string): Promise<{ kept: { name: string; text: string; at: number }[]; now: number }>;
}
