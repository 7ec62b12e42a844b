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
import type { Manifest, ManifestStore } from '../mirror/manifests/manifest-store.ts';
import { keyOf } from '../mirror/permissions.ts';
import type { Digest } from '../oci/digest.ts';
import { parseManifest } from '../oci/manifest.ts';
import { isDigest, type Tag } from '../oci/reference.ts';
import { PolicyError } from './errors.ts';
import { LONG_AGO, type Sightings } from './parts/age/sightings.ts';
import type { Refusal } from './parts/part.ts';
import type { PolicySet } from './policy-set.ts';
import type { Verdict } from './verdict.ts';

type Open = (request: ManifestRequest) => Promise<OpenManifest>;

export interface DoorContext {
  catalog: Catalog;
  index: IndexStore;
  manifests: Pick<ManifestStore, 'peek'>;
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
  async manifest(request: ManifestRequest, open: Open): Promise<OpenManifest> {
    const key = keyOf(request);
    const { reference } = request;
    const policies = this.#context.policies();
    policies.requireName(key, isDigest(reference) ? reference : undefined);
    const newest = await open(request);
    const sightings = policies.sightingsFor(key);
    const opened = sightings === undefined ? newest : await this.#oldEnough(request, newest, sightings, open);
    const { digest } = opened;
    const verdict = policies.recall(key, digest) ?? (await this.#decideOpened(request, opened, open));
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

  /** Whoever imports an image has let it in, as far as its age is concerned. */
  async admitImported(key: RepositoryKey, digest: Digest, tag: Tag | undefined): Promise<void> {
    await this.#context.policies().sightingsFor(key)?.note(key, [digest], tag, LONG_AGO);
  }

  /** Notes what is seen, and finds what a tag means among that which is old enough. */
  async #oldEnough(
    request: ManifestRequest,
    newest: OpenManifest,
    sightings: Sightings,
    open: Open,
  ): Promise<OpenManifest> {
    const key = keyOf(request);
    const { reference } = request;
    const tag = isDigest(reference) ? undefined : reference;
    let seen = newest;
    if (!sightings.knows(key, newest.digest, tag)) {
      seen = await whole(request, newest, open);
      const { manifests = [] } = (seen.bytes && parseManifest(seen.bytes, seen.mediaType)) ?? {};
      await sightings.note(key, [newest.digest, ...manifests.map(({ digest }) => digest)], tag);
    }
    if (tag === undefined) return seen;
    const digest = this.#context.policies().oldEnough(key, sightings.meaningsOf(key, tag));
    if (digest === undefined || digest === newest.digest) return newest;
    const held = await open({ ...request, reference: digest });
    return held.outcome === 'hit' ? { ...held, outcome: 'held' } : held;
  }

  async #decideOpened(request: ManifestRequest, opened: OpenManifest, open: Open): Promise<Verdict> {
    const { digest, bytes, mediaType } = await whole(request, opened, open);
    if (bytes === undefined) throw new Error(`${digest} was opened without its bytes`);
    return this.#decide(keyOf(request), { digest, bytes, mediaType });
  }

  /** @returns undefined if the manifest is not stored: then nobody knows what it lists */
  async #decideStored(key: RepositoryKey, digest: Digest): Promise<Verdict | undefined> {
    const known = this.#context.policies().recall(key, digest);
    if (known !== undefined) return known;
    const manifest = await this.#context.manifests.peek(digest);
    return manifest && this.#decide(key, manifest);
  }

  #decide({ upstream, repository }: RepositoryKey, manifest: Manifest): Promise<Verdict> {
    const parsed = parseManifest(manifest.bytes, manifest.mediaType);
    // The mirror stores and serves nothing else.
    if (parsed === undefined) throw new Error(`${manifest.digest} is not a manifest`);
    return this.#context.policies().decide({ upstream, repository, ...manifest, parsed });
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

/** A HEAD may have been answered without the manifest. */
function whole(
  request: ManifestRequest,
  opened: OpenManifest,
  open: Open,
): Promise<OpenManifest> | OpenManifest {
  return opened.bytes === undefined ? open({ ...request, reference: opened.digest, head: false }) : opened;
}
