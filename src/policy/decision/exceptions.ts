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

export class Exceptions {
  readonly #exceptions: readonly Exception[];

  constructor(settings: readonly ExceptionSettings[], upstreams: UpstreamByHost) {
    this.#exceptions = settings.map(({ image, until }) => {
      const { pattern, digest } = partsOf(image);
      const matchesName = pattern === undefined ? () => true : compileRepositoryPattern(pattern, upstreams);
      return { matchesName, digest, until };
    });
  }

  /** Up to when the policy does not apply to `subject`. Undefined: it applies. */
  endFor(subject: RepositoryKey & { digest: Digest }, now: number): number | undefined {
    const ends = this.#of(subject, now)
      .filter(({ digest }) => digest === undefined || digest === subject.digest)
      .map(({ until }) => until);
    return ends.length === 0 ? undefined : Math.max(...ends);
  }

  /** Whether there may be one for a manifest of the repository. @param digest of the manifest, if it is known */
  mayApply(key: RepositoryKey, digest: Digest | undefined, now: number): boolean {
    if (this.#exceptions.length === 0) return false; // the usual case, on every hit
    return this.#of(key, now).some(
      (exception) => exception.digest === undefined || digest === undefined || exception.digest === digest,
    );
  }

  #of({ upstream, repository }: RepositoryKey, now: number): Exception[] {
    const name = `${upstream}/${repository}`;
    return this.#exceptions.filter(({ matchesName, until }) => now < until && matchesName(name));
  }
}

interface Exception {
  matchesName: (name: string) => boolean;
  digest: string | undefined;
  until: number;
}

/** The pattern and the digest that an exception names. */
export function partsOf(image: string): { pattern: string | undefined; digest: string | undefined } {
  const [, pattern, digest] = /^(?:(.*?)@)?(sha(?:256|512):.*)$/.exec(image) ?? [undefined, image, undefined];
  return { pattern, digest };
}
