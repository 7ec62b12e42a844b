/** One policy: which repositories it is about, its exceptions, and the conditions that it makes. */
import { compileRepositoryPattern, type UpstreamByHost } from '../../access/rules/repositories.ts';
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import type { Digest } from '../../oci/digest.ts';
import type { AgePart } from '../parts/age/age-part.ts';
import { isArtifact } from '../parts/artifacts.ts';
import type { DenyPart } from '../parts/deny/deny-part.ts';
import { foreignLayerIn } from '../parts/foreign-layers.ts';
import {
  ALLOWED,
  type Evidence,
  type Finding,
  type PolicyPart,
  type Refusal,
  type Subject,
} from '../parts/part.ts';
import type { Admissions } from './admissions.ts';
import { type ExceptionSettings, Exceptions } from './exceptions.ts';
import type { Findings } from './findings.ts';

export interface PolicySettings {
  name: string;
  /** Patterns of repositories. */
  match: readonly string[];
  /** Whose requests it is about, as `who` of a rule spells them. Absent: everybody's. */
  who?: string | readonly string[] | undefined;
  /** `audit`: decides, counts and logs, and lets everything pass. */
  mode: PolicyMode;
  /** Whether an image may have layers that clients fetch from elsewhere. */
  foreignLayers: 'deny' | 'allow';
  except: readonly ExceptionSettings[];
}

const FOR_EVER = Number.POSITIVE_INFINITY;

export type PolicyMode = 'enforce' | 'audit';

/** The conditions of one policy. */
export interface PolicyParts {
  /** Of the settings and of the files that they name. */
  hash: string;
  deny?: DenyPart | undefined;
  age?: AgePart | undefined;
  /** Asks upstream. What it lets in is kept. */
  signature?: PolicyPart | undefined;
  /** Looks into the content. What it lets in is kept for as long as it says. */
  scan?: PolicyPart | undefined;
}

export interface PolicyContext {
  findings: Findings;
  admissions: Admissions;
  upstreams: UpstreamByHost;
}

export class Policy {
  readonly name: string;
  readonly mode: PolicyMode;
  readonly #settings: PolicySettings;
  readonly #parts: PolicyParts;
  readonly #findings: Findings;
  readonly #admissions: Admissions;
  readonly #patterns: readonly ((name: string) => boolean)[];
  readonly #exceptions: Exceptions;

  constructor(
    settings: PolicySettings,
    parts: PolicyParts,
    { findings, admissions, upstreams }: PolicyContext,
  ) {
    this.name = settings.name;
    this.mode = settings.mode;
    this.#settings = settings;
    this.#parts = parts;
    this.#findings = findings;
    this.#admissions = admissions;
    this.#patterns = settings.match.map((pattern) => compileRepositoryPattern(pattern, upstreams));
    this.#exceptions = new Exceptions(settings.except, upstreams);
  }

  /** Whether it lets in only what has been seen for some time. */
  get isAboutAge(): boolean {
    return this.#parts.age !== undefined;
  }

  /** Whether a decision may take longer than a client waits. */
  get isThorough(): boolean {
    return this.#parts.signature !== undefined || this.isScanning;
  }

  /** Whether a decision reads the whole image, which has limits of its own. */
  get isScanning(): boolean {
    return this.#parts.scan !== undefined;
  }

  /** @param name `upstream/repository` */
  matches(name: string): boolean {
    return this.#patterns.some((matches) => matches(name));
  }

  /** Why it refuses a whole repository. @param name `upstream/repository` */
  refusalOfRepository(name: string): Refusal | undefined {
    return this.#parts.deny?.refusalOfRepository(name);
  }

  /** Why it refuses what is asked for by its digest, before it is opened. */
  refusalOf(digest: Digest): Refusal | undefined {
    return this.#parts.deny?.refusalOf(digest);
  }

  /** Whether an exception may lift it for a manifest of the repository. @param digest of the manifest, if it is known */
  mayBeLifted(key: RepositoryKey, digest: Digest | undefined, now: number): boolean {
    return this.#exceptions.mayApply(key, digest, now);
  }

  /** From when on a manifest is old enough; milliseconds since the epoch. */
  oldEnoughFrom(key: RepositoryKey, digest: Digest, now: number): number {
    const lifting = [...this.#exceptions.lifting(key, now), ...this.#admissions.lifting(this.name, key, now)];
    const isLifted = lifting.some((one) => one.digest === undefined || one.digest === digest);
    return isLifted ? 0 : (this.#parts.age?.notBefore(key, digest) ?? 0);
  }

  /** @throws what a part throws: that is never an allow */
  async judge(subject: Subject, { evidence, indexes, childrenOf, now }: Surroundings): Promise<Finding> {
    const excepted = await liftedUntil(subject, this.#exceptions.lifting(subject, now), childrenOf);
    if (excepted !== undefined) return { allowed: true, until: excepted };
    const { deny, age } = this.#parts;
    const denied = await deny?.judge(subject);
    if (denied?.allowed === false) return denied;
    const admissions = this.#admissions.lifting(this.name, subject, now);
    const admitted = await liftedUntil(subject, admissions, childrenOf);
    if (admitted !== undefined) return { allowed: true, until: admitted };
    const foreign = this.#settings.foreignLayers === 'deny' ? foreignLayerIn(subject) : undefined;
    if (foreign !== undefined) return foreign;
    if (age === undefined && !this.isThorough) return ALLOWED;
    if (await isArtifact(subject, evidence)) return ALLOWED;
    const aged = (await age?.judge(subject)) ?? ALLOWED;
    if (!aged.allowed || !this.isThorough) return aged;
    return this.#judgeThoroughly(subject, evidence, indexes);
  }

  async #judgeThoroughly(subject: Subject, evidence: Evidence, indexes: Indexes): Promise<Finding> {
    const { hash } = this.#parts;
    const known = await this.#findings.recall(subject, this.name, hash);
    if (known !== undefined) return known;
    const signed = await this.#judgeSignature(subject, evidence, indexes);
    if (!signed.allowed) return signed;
    const scanned = (await this.#parts.scan?.judge(subject, evidence)) ?? ALLOWED;
    if (!scanned.allowed) return scanned;
    const until = Math.min(signed.until ?? FOR_EVER, scanned.until ?? FOR_EVER);
    const finding: Finding = until === FOR_EVER ? ALLOWED : { allowed: true, until };
    await this.#findings.keep(subject, this.name, hash, finding.until);
    return finding;
  }

  /**
   * A signature of an index covers what it lists: cosign signs the index, and clients go on to its manifests. Looks at the
   * index that was pulled just now first: a platform manifest mostly has no signature of its own.
   */
  async #judgeSignature(subject: Subject, evidence: Evidence, indexes: Indexes): Promise<Finding> {
    const { signature, hash } = this.#parts;
    if (signature === undefined) return ALLOWED;
    let own: Finding | undefined;
    for (const look of [indexes.recent, indexes.all]) {
      for await (const index of look()) {
        // Only what this policy has found: an index that it excepts, or that lists only artifacts, covers nothing.
        const finding = await this.#findings.recall({ ...subject, digest: index }, this.name, hash);
        if (finding !== undefined) return finding;
      }
      own ??= await signature.judge(subject, evidence);
      if (own.allowed) break;
    }
    return own ?? signature.judge(subject, evidence);
  }
}

/** The digests of indexes that list the manifest and are let in. */
export interface Indexes {
  /** The one that was pulled just now. */
  recent: () => AsyncIterable<Digest>;
  /** Goes through everything that is stored. */
  all: () => AsyncIterable<Digest>;
}

interface Surroundings {
  evidence: Evidence;
  /** What a stored manifest lists. */
  childrenOf: (digest: Digest) => Promise<readonly Digest[]>;
  indexes: Indexes;
  now: number;
}

/**
 * The last end of what lifts a policy for a manifest: for its repository, for itself, or for an index that lists it.
 *
 * @returns undefined if nothing does
 */
async function liftedUntil(
  { digest }: Subject,
  lifting: readonly { digest: string | undefined; until: number }[],
  childrenOf: Surroundings['childrenOf'],
): Promise<number | undefined> {
  let last: number | undefined;
  for (const one of lifting) {
    const isMeant =
      one.digest === undefined ||
      one.digest === digest ||
      (await childrenOf(one.digest as Digest)).includes(digest);
    if (isMeant) last = Math.max(one.until, last ?? 0);
  }
  return last;
}
