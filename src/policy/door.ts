/**
 * Stands between the mirror and its clients: what no verdict lets in reaches none of them.
 *
 * Decides about digests of manifests, and exactly the bytes of that digest are served. Blobs follow the manifests that
 * list them.
 */
import { LRUCache } from 'lru-cache';
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { IndexStore, RepositoryKey } from '../cache/index/index-store.ts';
import type { BlobRequest, BlobStat, OpenBlob } from '../mirror/blobs/blob-mirror.ts';
import type { ManifestRequest, OpenManifest } from '../mirror/manifests/manifest-mirror.ts';
import { keyOf } from '../mirror/permissions.ts';
import type { Digest } from '../oci/digest.ts';
import { childrenOf, parseManifest } from '../oci/manifest.ts';
import { isDigest } from '../oci/reference.ts';
import { PolicyError } from './errors.ts';
import type { Refusal } from './parts/part.ts';
import type { PolicySet } from './policy-set.ts';
import type { Verdict } from './verdict.ts';

export interface DoorContext {
  catalog: Catalog;
  index: IndexStore;
  /** The policies of this moment. */
  policies: () => PolicySet;
}

/** Some 200 bytes each. */
const REMEMBERED_BLOBS = 50_000;

const NO_LISTING: Refusal = {
  allowed: false,
  reason: 'no manifest that is let in lists it here',
  advice: 'pull the manifest of its image first, from the same repository',
  detail: { denied: 'unlisted' },
};

const NOT_HERE: Refusal = {
  allowed: false,
  reason: 'this manifest is not cached, so what it lists cannot be checked',
  advice: 'pull it as a manifest first, from the same repository',
  detail: { denied: 'unknown' },
};

export class PolicyDoor {
  readonly #context: DoorContext;
  /**
   * For each blob a manifest that lists it and was let in. Says only where to look: the verdict about that manifest is
   * asked for each time.
   */
  readonly #listedBy = new LRUCache<string, Digest>({ max: REMEMBERED_BLOBS });
  /** The manifests whose blobs have been noted. */
  readonly #noted = new LRUCache<string, true>({ max: REMEMBERED_BLOBS });

  constructor(context: DoorContext) {
    this.#context = context;
  }

  /** @throws {PolicyError} it is not let in @throws what `open` throws */
  async manifest(
    request: ManifestRequest,
    open: (request: ManifestRequest) => Promise<OpenManifest>,
  ): Promise<OpenManifest> {
    const key = keyOf(request);
    const { reference } = request;
    this.#context.policies().requireName(key, isDigest(reference) ? reference : undefined);
    const opened = await open(request);
    const { digest } = opened;
    const known = this.#context.policies().recall({ ...key, digest });
    const verdict = known ?? (await this.#decideWhole(request, opened, open));
    if (!verdict.allowed) throw new PolicyError(verdict.policy, verdict.refusal);
    this.#noteBlobs(key, opened);
    return opened;
  }

  /** @throws {PolicyError} it is not let in @throws what `open` throws */
  async blob<T extends OpenBlob | BlobStat>(
    request: BlobRequest,
    open: (request: BlobRequest) => Promise<T>,
  ): Promise<T> {
    await this.#requireBlob(keyOf(request), request.digest);
    return open(request);
  }

  /** For lists of a repository: they hold no content, so only its name counts. @throws {PolicyError} */
  requireRepository(key: RepositoryKey): void {
    this.#context.policies().requireName(key);
  }

  /** For a manifest that is stored. @throws {PolicyError} */
  async requireManifest(key: RepositoryKey, digest: Digest): Promise<void> {
    const guard = this.#context.policies().guardOf(key);
    if (guard === undefined) return;
    const verdict = await this.#decideStored(key, digest);
    if (verdict === undefined) throw new PolicyError(guard, NOT_HERE);
    if (!verdict.allowed) throw new PolicyError(verdict.policy, verdict.refusal);
  }

  /** A HEAD may have been answered without the manifest, and what it lists has to be known. */
  async #decideWhole(
    request: ManifestRequest,
    { digest, bytes, mediaType }: OpenManifest,
    open: (request: ManifestRequest) => Promise<OpenManifest>,
  ): Promise<Verdict> {
    const whole =
      bytes === undefined ? await open({ ...request, reference: digest, head: false }) : { bytes, mediaType };
    const parsed = whole.bytes && parseManifest(whole.bytes, whole.mediaType);
    const lists = parsed === undefined ? [] : childrenOf(parsed);
    return this.#context.policies().decide({ ...keyOf(request), digest, lists });
  }

  /** @returns undefined if the manifest is not stored: then nobody knows what it lists */
  async #decideStored(key: RepositoryKey, digest: Digest): Promise<Verdict | undefined> {
    const known = this.#context.policies().recall({ ...key, digest });
    if (known !== undefined) return known;
    const lists = (await this.#context.catalog.get(digest))?.children;
    return lists && this.#context.policies().decide({ ...key, digest, lists });
  }

  async #requireBlob(key: RepositoryKey, digest: Digest): Promise<void> {
    const policies = this.#context.policies();
    policies.requireName(key);
    const guard = policies.guardOf(key);
    if (guard === undefined) return;
    const lister = this.#listedBy.get(nameOf(key, digest));
    if (lister !== undefined && (await this.#decideStored(key, lister))?.allowed === true) return;
    const permission = await this.#context.index.permission(key, digest);
    if (permission?.expanded === true) return this.requireManifest(key, digest);
    policies.requireName(key, digest);
    // Without a record nothing lists it. With one it may be upstream's word alone, which does not count here.
    const refused = permission === undefined ? NO_LISTING : await this.#refusedByAll(key, digest);
    if (refused instanceof PolicyError) throw refused;
    if (refused !== undefined) throw new PolicyError(guard, refused);
  }

  /**
   * Asks about every manifest of the repository that lists a blob. Goes through all manifests: only for a blob whose
   * manifest was pulled long ago, or before a restart.
   *
   * @returns undefined if one of them is let in
   */
  async #refusedByAll(key: RepositoryKey, digest: Digest): Promise<PolicyError | Refusal | undefined> {
    const { catalog, index } = this.#context;
    let refused: PolicyError | Refusal = NO_LISTING;
    for (const lister of (await catalog.parentsOf([digest])).get(digest) ?? []) {
      if ((await index.permission(key, lister))?.expanded !== true) continue;
      const verdict = await this.#decideStored(key, lister);
      if (verdict === undefined) continue;
      if (verdict.allowed) {
        this.#listedBy.set(nameOf(key, digest), lister);
        return undefined;
      }
      refused = new PolicyError(verdict.policy, verdict.refusal);
    }
    return refused;
  }

  /** So that the blobs of a pull are found without a search. */
  #noteBlobs(key: RepositoryKey, { digest, bytes, mediaType }: OpenManifest): void {
    const name = nameOf(key, digest);
    if (bytes === undefined || this.#noted.has(name)) return;
    this.#noted.set(name, true);
    for (const blob of parseManifest(bytes, mediaType)?.blobs ?? [])
      this.#listedBy.set(nameOf(key, blob.digest), digest);
  }
}

function nameOf({ upstream, repository }: RepositoryKey, digest: Digest): string {
  return `${upstream}/${repository}@${digest}`;
}
