/**
 * The port to what nodes agree on, and what may be lost. Each group of methods has an interface of its own.
 *
 * Correctness never depends on it, only on digests: the worst that a lost or late answer costs is one more fetch.
 */
import { type Digest, digestHex } from '../../oci/digest.ts';

export interface Coordinator {
  readonly leases: CoordinatedLeases;
  readonly notes: CoordinatedNotes;
  readonly members: CoordinatedMembers;
  readonly uses: CoordinatedUses;
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

/** Records of use lie in this many places, so that a cluster shares them out. */
export const USE_GROUPS = 64;

/** Where the record of a digest lies: below {@link USE_GROUPS}. */
export function useGroup(digest: Digest): number {
  return Number.parseInt(digestHex(digest).slice(0, 2), 16) % USE_GROUPS;
}

export const USE_TIMES = {
  /** A record lasts this long after it was last used or looked at. */
  recordMs: 3 * 86_400_000,
  /** What is chosen to leave the store is left there for this long: for readers, and for presigned URLs. */
  leavingMs: 15 * 60_000,
  /** No removal reaches the store later than this after it was decided on. */
  removalMs: 15 * 60_000,
  /** Nodes that have a removed digest are told for this long that the store has not. */
  goneMs: 86_400_000,
} as const;

/** When a digest was last used, as the coordinator's clock has it; milliseconds since the epoch. */
export interface LastUse {
  usedAt: number;
  /** Since when it is marked as leaving; undefined: it is not. */
  leavingSince: number | undefined;
}

/**
 * When content of the object store was last used, and what leaves it. {@link USE_TIMES} says how long what lasts. All
 * methods throw {EngineError}.
 */
export interface CoordinatedUses {
  /**
   * Notes that digests are used now. That takes the mark off what is leaving.
   *
   * @returns those that have left the store, or are leaving it right now: it is too late for them
   */
  use(digests: readonly Digest[]): Promise<Digest[]>;
  /** Notes that a digest is being written. @returns false: it is being removed right now, and must not be written yet */
  revive(digest: Digest): Promise<boolean>;
  /**
   * Tells when digests that are in the store were last used. Without a record they count as used now, from now on.
   *
   * @returns undefined for one that is being removed right now
   */
  look(digests: readonly Digest[]): Promise<{ uses: (LastUse | undefined)[]; now: number }>;
  /** Marks digests as leaving that have not been used since `usedAt`. @returns those that are marked now */
  mark(victims: readonly { digest: Digest; usedAt: number }[]): Promise<Digest[]>;
  /** Decides to remove digests that have been leaving for long enough, and have not been used. @returns those */
  take(digests: readonly Digest[]): Promise<Digest[]>;
  /** Says that the removal of digests is over. */
  removed(digests: readonly Digest[]): Promise<void>;
}
