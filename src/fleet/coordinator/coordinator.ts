/**
 * The port to what nodes agree on, and what may be lost. Each group of methods has an interface of its own.
 *
 * Correctness never depends on it, only on digests: the worst that a lost or late answer costs is one more fetch.
 */

export interface Coordinator {
  readonly leases: CoordinatedLeases;
  readonly notes: CoordinatedNotes;
  readonly members: CoordinatedMembers;
  readonly journal: CoordinatedJournal;
  /** What an operator should change in how it is set up. @throws {EngineError} it does not say */
  advice(): Promise<string[]>;
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
   * Says that a node is there, and what it is at. Both replace what it said before.
   *
   * @param card what others know it by
   * @param state changes all the time
   * @returns the cards of all nodes that have said something within `forMs`, and the coordinator's time; milliseconds since
   *   the epoch
   */
  beat(
    id: string,
    said: { card: string; state: string },
    forMs: number,
  ): Promise<{ cards: string[]; now: number }>;
  /** All that nodes have said, for whoever asks how they are. */
  all(): Promise<SaidByMember[]>;
}

export interface SaidByMember {
  card: string;
  /** Empty: it has said nothing of that. */
  state: string;
  /** Milliseconds since then, by the coordinator's own clock. */
  ageMs: number;
}

/** What happened, in turn. All methods throw {EngineError}. */
export interface CoordinatedJournal {
  /** Adds a text behind all others. The journal is lost when nobody adds anything for `forMs`. */
  append(text: string, forMs: number): Promise<void>;
  /** @param after the position up to which the caller has read; empty: it has read nothing */
  read(after: string): Promise<JournalPart>;
}

export interface JournalPart {
  /** Those behind the position, the oldest first: as many as come at once. */
  entries: { text: string; ageMs: number }[];
  /** The position behind these. */
  position: string;
  /** False: of what stood behind the caller's position, some may be lost. */
  isWhole: boolean;
}
