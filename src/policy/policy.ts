/** One policy: which repositories it is about, its exceptions, and the conditions that it makes. */
import { compileRepositoryPattern, type UpstreamByHost } from '../access/rules/repositories.ts';
import type { RepositoryKey } from '../cache/index/index-store.ts';
import type { Digest } from '../oci/digest.ts';
import { type ExceptionSettings, Exceptions } from './exceptions.ts';
import type { AgePart } from './parts/age/age-part.ts';
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

/** The conditions of one policy. */
export interface PolicyParts {
  deny?: DenyPart | undefined;
  age?: AgePart | undefined;
}

export class Policy {
  readonly name: string;
  readonly mode: PolicyMode;
  readonly #parts: PolicyParts;
  readonly #patterns: readonly ((name: string) => boolean)[];
  readonly #exceptions: Exceptions;

  constructor(settings: PolicySettings, parts: PolicyParts, upstreams: UpstreamByHost) {
    this.name = settings.name;
    this.mode = settings.mode;
    this.#parts = parts;
    this.#patterns = settings.match.map((pattern) => compileRepositoryPattern(pattern, upstreams));
    this.#exceptions = new Exceptions(settings.except, upstreams);
  }

  /** Whether it lets in only what has been seen for some time. */
  get isAboutAge(): boolean {
    return this.#parts.age !== undefined;
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
    const { deny } = this.#parts;
    if (deny === undefined || this.#exceptions.mayApply(key, digest, now)) return ALLOWED;
    return deny.judgeName(key, digest);
  }

  /** From when on a manifest is old enough; milliseconds since the epoch. */
  oldEnoughFrom(key: RepositoryKey, digest: Digest, now: number): number {
    const isExcepted = this.#exceptions.endFor({ ...key, digest }, now) !== undefined;
    return isExcepted ? 0 : (this.#parts.age?.notBefore(key, digest) ?? 0);
  }

  /** @throws what a part throws: that is never an allow */
  async judge(subject: Subject, now: number): Promise<Finding> {
    const excepted = this.#exceptions.endFor(subject, now);
    if (excepted !== undefined) return { allowed: true, until: excepted };
    let until = Number.POSITIVE_INFINITY;
    for (const part of [this.#parts.deny, this.#parts.age]) {
      const finding = await part?.judge(subject);
      if (finding?.allowed === false) return finding;
      until = Math.min(until, finding?.until ?? until);
    }
    return { allowed: true, until };
  }
}
