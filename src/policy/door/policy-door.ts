/**
 * Stands between the mirror and its clients: what no verdict lets in reaches none of them.
 *
 * Decides about digests of manifests, and exactly the bytes of that digest are served. Blobs follow the manifests that
 * list them.
 */
import type { IndexStore, RepositoryKey } from '../../cache/index/index-store.ts';
import type { Clock } from '../../clock.ts';
import type { BlobRequest, BlobStat, OpenBlob } from '../../mirror/blobs/blob-mirror.ts';
import type { ManifestRequest, OpenManifest } from '../../mirror/manifests/manifest-mirror.ts';
import { keyOf } from '../../mirror/permissions.ts';
import type { Digest } from '../../oci/digest.ts';
import { isDigest, type Tag } from '../../oci/reference.ts';
import type { Identity } from '../../request-context.ts';
import { type Listings, listsBlob } from '../decision/listings.ts';
import type { PolicySet } from '../decision/policy-set.ts';
import type { Verdict } from '../decision/verdict.ts';
import { PolicyError, UndecidedError } from '../errors.ts';
import { LONG_AGO } from '../parts/age/sightings.ts';
import { NO_LISTING, NOT_HERE } from './missing.ts';
import { resolveTag, whole } from './resolve-tag.ts';

type Open = (request: ManifestRequest) => Promise<OpenManifest>;

export interface DoorContext {
  index: IndexStore;
  listings: Listings;
  /** The policies of this moment that apply to somebody. Without an identity, all. */
  policies: (identity?: Identity) => PolicySet;
  /** How long a client waits for a decision; milliseconds. */
  policyWaitMs: number;
  clock: Clock;
}

export class PolicyDoor {
  readonly #context: DoorContext;

  constructor(context: DoorContext) {
    this.#context = context;
  }

  /**
   * @throws {PolicyError} it is not let in @throws {UndecidedError} that is not known
   * @throws what `open` throws
   */
  async manifest(request: ManifestRequest, open: Open): Promise<OpenManifest> {
    const key = keyOf(request);
    const { reference, context } = request;
    const policies = this.#context.policies(context.identity);
    policies.requireName(key, isDigest(reference) ? reference : undefined);
    const newest = await open(request);
    const passed = policies.recall(key, newest.digest);
    const sightings = policies.sightingsFor(key);
    const isSeen = sightings?.knows(key, newest.digest, isDigest(reference) ? undefined : reference) ?? true;
    // The usual case of a hit: it has been let in, with all that it lists.
    if (passed?.allowed === true && isSeen && (newest.bytes === undefined || passed.isNoted === true))
      return newest;
    const opened =
      sightings === undefined ? newest : await resolveTag(request, newest, { policies, sightings, open });
    const known = policies.recall(key, opened.digest);
    if (known === undefined) {
      const { digest, mediaType, bytes } = await whole(request, opened, open);
      if (bytes === undefined) throw new Error(`${digest} was opened without its bytes`);
      const decision = policies.decide(key, { digest, mediaType, bytes });
      // Work ahead of time has time: a scan may take minutes.
      const isPatient = context.background === true;
      const verdict = isPatient ? await decision : await this.#wait(policies, key, digest, decision);
      letIn(verdict, this.#context.clock.now());
    } else letIn(known, this.#context.clock.now());
    this.#note(key, opened, policies);
    return opened;
  }

  #note(key: RepositoryKey, { digest, mediaType, bytes }: OpenManifest, policies: PolicySet): void {
    if (bytes === undefined) return;
    this.#context.listings.note(key, { digest, mediaType, bytes });
    const made = policies.recall(key, digest);
    if (made !== undefined) made.isNoted = true;
  }

  /** @throws as {@link manifest} */
  async blob<T extends OpenBlob | BlobStat>(
    request: BlobRequest,
    open: (request: BlobRequest) => Promise<T>,
  ): Promise<T> {
    await this.#requireBlob(keyOf(request), request.digest, this.#context.policies(request.context.identity));
    return open(request);
  }

  /** For lists of a repository: they hold no content, so only its name counts. @throws {PolicyError} */
  requireRepository(key: RepositoryKey, identity: Identity): void {
    this.#context.policies(identity).requireName(key);
  }

  /** For a manifest that is stored. @throws {PolicyError | UndecidedError} */
  async requireManifest(
    key: RepositoryKey,
    digest: Digest,
    policies = this.#context.policies(),
  ): Promise<void> {
    const guard = policies.guardOf(key);
    if (guard === undefined) return;
    const verdict = await this.#wait(policies, key, digest, policies.decideStored(key, digest));
    if (verdict === undefined) throw new PolicyError(guard, NOT_HERE);
    letIn(verdict, this.#context.clock.now());
  }

  /** Whoever imports an image has let it in, as far as its age is concerned. */
  async admitImported(key: RepositoryKey, digest: Digest, tag: Tag | undefined): Promise<void> {
    await this.#context.policies().sightingsFor(key)?.note(key, [digest], tag, LONG_AGO);
  }

  async #requireBlob(key: RepositoryKey, digest: Digest, policies: PolicySet): Promise<void> {
    const { index, listings } = this.#context;
    policies.requireName(key);
    const guard = policies.guardOf(key);
    if (guard === undefined) return;
    const recent = listings.manifestOf(key, digest);
    if (recent !== undefined) {
      const verdict = await this.#wait(policies, key, recent, policies.decideStored(key, recent));
      if (verdict?.allowed === true) return;
    }
    const permission = await index.permission(key, digest);
    if (permission?.expanded === true) return this.requireManifest(key, digest, policies);
    // A record may be upstream's word alone, which does not count here. Without any, nothing lists it.
    const isKnown = permission !== undefined || (await listings.isKnown(digest));
    if (isKnown && (await this.#isListed(key, digest, policies))) return;
    policies.requireName(key, digest); // says more
    throw new PolicyError(guard, NO_LISTING);
  }

  /**
   * Asks about every manifest of the repository that lists a blob.
   *
   * @returns whether one of them is let in; false: there is none at all
   * @throws {PolicyError | UndecidedError} none of them is let in
   */
  async #isListed(key: RepositoryKey, digest: Digest, policies: PolicySet): Promise<boolean> {
    const { listings, clock } = this.#context;
    let refused: Verdict | undefined;
    for (const lister of await listings.search(key, digest)) {
      const verdict = await this.#wait(policies, key, lister, policies.decideStored(key, lister));
      const manifest = verdict?.allowed === true ? await listings.manifest(lister) : undefined;
      if (manifest !== undefined) {
        listings.note(key, manifest);
        // An index lists manifests: that it is let in says nothing about them.
        if (!listsBlob(manifest, digest)) await this.requireManifest(key, digest, policies);
        return true;
      }
      refused ??= verdict;
    }
    if (refused !== undefined) letIn(refused, clock.now());
    return false;
  }

  /** The decision goes on when nobody waits for it any more, for those who ask again. @throws {UndecidedError} */
  async #wait<T>(policies: PolicySet, key: RepositoryKey, digest: Digest, decision: Promise<T>): Promise<T> {
    const { clock, policyWaitMs } = this.#context;
    if (!policies.isThorough(key)) return decision;
    const stop = new AbortController();
    const waited = clock.sleep(policyWaitMs, stop.signal).then(
      () => WAITED,
      () => WAITED, // the decision has come, or fails
    );
    decision.catch(() => undefined); // whoever asks again gets it
    try {
      const first = await Promise.race([decision, waited]);
      if (first !== WAITED) return first as T;
    } finally {
      stop.abort();
    }
    const since = new Date(policies.begunAt(key, digest) ?? clock.now() - policyWaitMs).toISOString();
    const message = `this is being checked since ${since}: ask again`;
    throw new UndecidedError(message, ASK_AGAIN_MS, { checkedSince: since, digest });
  }
}

const WAITED = Symbol('waited');
const ASK_AGAIN_MS = 5_000;

/** @throws {PolicyError | UndecidedError} */
function letIn(verdict: Verdict, now: number): void {
  if (verdict.allowed) return;
  const { policy, refusal, until } = verdict;
  if (refusal.isUnknown !== true) throw new PolicyError(policy, refusal);
  const { reason, advice, detail } = refusal;
  const message = `the policy ${policy} cannot say whether this may come in: ${reason}; ${advice}`;
  throw new UndecidedError(message, Math.max(0, (until ?? now) - now), { policy, ...detail });
}
