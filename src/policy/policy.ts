/** One policy: which repositories it is about, its exceptions, and the conditions that it makes. */
import { compileRepositoryPattern, type UpstreamByHost } from '../access/rules/repositories.ts';
import type { RepositoryKey } from '../cache/index/index-store.ts';
import type { Digest } from '../oci/digest.ts';
import { type ExceptionSettings, Exceptions } from './exceptions.ts';
import type { DenyPart } from './parts/deny/deny-part.ts';
import { ALLOWED, type Finding, type Subject } from './parts/part.ts';

export interface PolicySettings {
  name: string;
  /** Patterns of repositories. */
  match: readonly string[];
  /** `audit`: decides, counts and logs, and lets everything pass. */
  mode: PolicyMode;
  except: readonly ExceptionSettings[];
}

export type PolicyMode = 'enforce' | 'audit';

export class Policy {
  readonly name: string;
  readonly mode: PolicyMode;
  readonly #deny: DenyPart;
  readonly #patterns: readonly ((name: string) => boolean)[];
  readonly #exceptions: Exceptions;

  constructor(settings: PolicySettings, deny: DenyPart, upstreams: UpstreamByHost) {
    this.name = settings.name;
    this.mode = settings.mode;
    this.#deny = deny;
    this.#patterns = settings.match.map((pattern) => compileRepositoryPattern(pattern, upstreams));
    this.#exceptions = new Exceptions(settings.except, upstreams);
  }

  /** @param name `upstream/repository` */
  matches(name: string): boolean {
    return this.#patterns.some((matches) => matches(name));
  }

  /**
   * What can be said before a manifest is opened.
   *
   * @param digest what is asked for, if it was asked for by digest
   */
  judgeName(key: RepositoryKey, digest: Digest | undefined, now: number): Finding {
    return this.#exceptions.mayApply(key, digest, now) ? ALLOWED : this.#deny.judgeName(key, digest);
  }

  /** @throws {StorageError} the index cannot be read */
  async judge(subject: Subject, now: number): Promise<Finding> {
    const until = this.#exceptions.endFor(subject, now);
    return until === undefined ? this.#deny.judge(subject) : { allowed: true, until };
  }
}
