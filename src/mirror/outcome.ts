/** How the cache answered: the `cache` label of the metrics, and the source of the `Cache-Status` header. */
export type CacheOutcome =
  /** Answered from the cache without asking upstream. */
  | 'hit'
  /** Answered from the cache after upstream confirmed it. */
  | 'revalidated'
  /** Answered from the cache although upstream could not confirm it. */
  | 'stale'
  /** Answered from the cache with what the tag meant before: what it means now is too new for a policy. */
  | 'held'
  /** Fetched. */
  | 'miss'
  /** Fetched from the fleet's object store. */
  | 'store'
  /** Fetched from another node of the fleet. */
  | 'node'
  /** Joined a fetch that was already running. */
  | 'collapsed'
  /** The tag had moved; the new manifest was fetched. */
  | 'updated'
  /** Fetched without being cached. */
  | 'bypass';
