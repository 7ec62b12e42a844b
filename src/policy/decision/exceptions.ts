/** Exceptions from a policy: images to which it does not apply, each with a reason and an end. */
import { compileRepositoryPattern, type UpstreamByHost } from '../../access/rules/repositories.ts';
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';

export interface ExceptionSettings {
  /** A pattern of repositories, a digest, or both with `@` between them. */
  image: string;
  reason: string;
  /** When it ends; milliseconds since the epoch. */
  until: number;
}

const NONE: readonly Exception[] = [];

export class Exceptions {
  readonly #exceptions: readonly Exception[];

  constructor(settings: readonly ExceptionSettings[], upstreams: UpstreamByHost) {
    this.#exceptions = settings.map(({ image, until }) => {
      const { pattern, digest } = partsOf(image);
      const matchesName = pattern === undefined ? () => true : compileRepositoryPattern(pattern, upstreams);
      return { matchesName, digest, until };
    });
  }

  /** Those that hold in a repository: for everything in it, or for one digest. */
  lifting(key: RepositoryKey, now: number): readonly Exception[] {
    return this.#exceptions.length === 0 ? NONE : this.#of(key, now);
  }

  /** Whether there may be one for a manifest of the repository. @param digest of the manifest, if it is known */
  mayApply(key: RepositoryKey, digest: Digest | undefined, now: number): boolean {
    return this.lifting(key, now).some(
      (exception) => exception.digest === undefined || digest === undefined || exception.digest === digest,
    );
  }

  #of({ upstream, repository }: RepositoryKey, now: number): Exception[] {
    const name = `${upstream}/${repository}`;
    return this.#exceptions.filter(({ matchesName, until }) => now < until && matchesName(name));
  }
}

export interface Exception {
  matchesName: (name: string) => boolean;
  digest: string | undefined;
  until: number;
}

/** The pattern and the digest that an exception names. */
export function partsOf(image: string): { pattern: string | undefined; digest: string | undefined } {
  const [, pattern, digest] = /^(?:(.*?)@)?(sha(?:256|512):.*)$/.exec(image) ?? [undefined, image, undefined];
  return { pattern, digest };
}
