/**
 * The port to what nodes agree on, and what may be lost. Each group of methods has an interface of its own.
 *
 * Correctness never depends on it, only on digests: the worst that a lost or late answer costs is one more fetch.
 */

export interface Coordinator {
  readonly leases: CoordinatedLeases;
  readonly notes: CoordinatedNotes;
  readonly members: CoordinatedMembers;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Who has a lease. */
export interface Lease {
  /** What the holder says of itself. */
  holder: string;
  /**
   * Grows with each holder of the same name. A command is about one number, so that one which is carried out late, because
   * the coordinator was frozen, changes nothing for whoever has the lease by then.
   */
  number: number;
  /** The byte that the holder had reached when it last said so. */
  reached: number;
}

export interface ClaimOptions {
  forMs: number;
  /** The byte that the claimant has reached. */
  reached?: number;
  /** Number of a lease that need not be respected: its holder was found dead. */
  instead?: number;
  /** Another lease, whose name begins with the same two characters. */
  also?: string;
}

export interface ClaimAnswer {
  /** As it is now. It may be the claimant's. */
  lease: Lease;
  /** The claimant has the other lease, too. */
  hasBoth: boolean;
}

/** Who fetches or uploads what. All methods throw {EngineError}. */
export interface CoordinatedLeases {
  /**
   * Takes the lease `name` for `holder` if nobody has it, or if its number is `instead`. Takes the lease `also` with it, and
   * under the same number, if that is free as well.
   *
   * Of those who claim instead of the same number, the one that has reached most wins, until the winner renews it.
   */
  claim(name: string, holder: string, options: ClaimOptions): Promise<ClaimAnswer>;
  /**
   * Makes leases last for `forMs` from now on, and says what their holder has reached.
   *
   * @param leases by name @returns the names of those that another holder has, or nobody
   */
  renew(leases: ReadonlyMap<string, Pick<Lease, 'number' | 'reached'>>, forMs: number): Promise<string[]>;
  /** Gives leases back. Those that have another number stay. @param leases numbers by name */
  release(leases: ReadonlyMap<string, number>): Promise<void>;
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
