/**
 * Refuses what is on a list. Whatever lists a denied digest, to any depth, is denied too, and so is what only a denied
 * manifest lists: otherwise a client that asks for the pieces one by one would get them.
 *
 * Judges by the manifests that are here. One that is not here yet is judged when it is asked for.
 */
import type { Catalog } from '../../../cache/catalog/catalog.ts';
import type { IndexStore, RepositoryKey } from '../../../cache/index/index-store.ts';
import type { Digest } from '../../../oci/digest.ts';
import { childrenOf, MAX_MANIFEST_DEPTH } from '../../../oci/manifest.ts';
import { ALLOWED, type Finding, type PolicyPart, type Refusal, type Subject } from '../part.ts';

export interface DenyContext {
  catalog: Catalog;
  index: IndexStore;
}

export class DenyPart implements PolicyPart {
  readonly #digests: ReadonlySet<Digest>;
  readonly #isDeniedRepository: (name: string) => boolean;
  readonly #context: DenyContext;

  /** @param isDeniedRepository is asked with `upstream/repository` */
  constructor(
    digests: ReadonlySet<Digest>,
    isDeniedRepository: (name: string) => boolean,
    context: DenyContext,
  ) {
    this.#digests = digests;
    this.#isDeniedRepository = isDeniedRepository;
    this.#context = context;
  }

  /** @param name `upstream/repository` */
  refusalOfRepository(name: string): Refusal | undefined {
    if (!this.#isDeniedRepository(name)) return undefined;
    return {
      ...{ allowed: false, reason: `the repository ${name} is denied`, advice: ADVICE },
      detail: { denied: 'repository', repository: name },
    };
  }

  /** Of the digest itself, whatever lists it. */
  refusalOf(digest: Digest): Refusal | undefined {
    return this.#digests.has(digest) ? denied(digest) : undefined;
  }

  async judge(subject: Subject): Promise<Finding> {
    const name = `${subject.upstream}/${subject.repository}`;
    const itself = this.refusalOfRepository(name) ?? this.refusalOf(subject.digest);
    if (itself !== undefined) return itself;
    if (this.#digests.size === 0) return ALLOWED;
    const below = await this.#deniedBelow(subject.digest, childrenOf(subject.parsed));
    if (below !== undefined) return denied(below);
    const above = await this.#deniedAbove(subject);
    return above === undefined ? ALLOWED : denied(above);
  }

  /** A denied digest among what a manifest lists. */
  #deniedBelow(digest: Digest, lists?: readonly Digest[]): Promise<Digest | undefined> {
    return this.#findBelow(digest, (child) => this.#digests.has(child), lists);
  }

  /** The denied manifest that it is below, if nothing else in the repository vouches for it. */
  async #deniedAbove(subject: RepositoryKey & { digest: Digest }, depth = 0): Promise<Digest | undefined> {
    // Goes through the list and not through the catalog, which may have a million manifests.
    for (const denied of this.#digests) {
      const isBelow = await this.#findBelow(denied, (child) => child === subject.digest);
      if (isBelow === undefined) continue;
      return (await this.#isVouchedFor(subject, depth)) ? undefined : denied;
    }
    return undefined;
  }

  /** Whether a tag means it, or a manifest of the repository lists it that is not denied itself. */
  async #isVouchedFor(subject: RepositoryKey & { digest: Digest }, depth: number): Promise<boolean> {
    const { catalog, index } = this.#context;
    for await (const [, { digest }] of index.tags(subject)) if (digest === subject.digest) return true;
    const parents = (await catalog.parentsOf([subject.digest])).get(subject.digest) ?? [];
    for (const digest of parents) {
      if (this.#digests.has(digest) || depth > MAX_MANIFEST_DEPTH) continue;
      if ((await index.permission(subject, digest))?.expanded !== true) continue;
      if ((await this.#deniedBelow(digest)) !== undefined) continue;
      if ((await this.#deniedAbove({ ...subject, digest }, depth + 1)) === undefined) return true;
    }
    return false;
  }

  /** Walks through the manifests below `digest` that are here. @param lists what `digest` lists, if that is known */
  async #findBelow(
    digest: Digest,
    isWanted: (digest: Digest) => boolean,
    lists?: readonly Digest[],
    seen = new Set<Digest>(),
  ): Promise<Digest | undefined> {
    if (seen.has(digest)) return undefined; // a hostile index can list one manifest at every level
    seen.add(digest);
    const children = lists ?? (await this.#context.catalog.get(digest))?.children ?? [];
    const wanted = children.find(isWanted);
    if (wanted !== undefined) return wanted;
    for (const child of children) {
      const found = await this.#findBelow(child, isWanted, undefined, seen);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

const ADVICE = 'use another image, or ask those who run this mirror';

function denied(digest: Digest): Refusal {
  return {
    ...{ allowed: false, reason: `${digest} is denied`, advice: ADVICE },
    detail: { denied: 'digest', digest },
  };
}
