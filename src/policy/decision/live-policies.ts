/** The policies in use: made of the configuration and of the files that it names. A changed file makes them anew. */
import type { UpstreamByHost } from '../../access/rules/repositories.ts';
import { parseWho, type Who } from '../../access/rules/who.ts';
import { WatchedFiles } from '../../files/watched-files.ts';
import type { Identity } from '../../request-context.ts';
import { noteWhatIsCached } from '../parts/age/first-look.ts';
import type { Sightings } from '../parts/age/sightings.ts';
import type { DenyContext } from '../parts/deny/deny-part.ts';
import type { Admissions } from './admissions.ts';
import type { Findings } from './findings.ts';
import { Policy, type PolicyParts } from './policy.ts';
import { type ConditionSettings, filesOf, makeParts } from './policy-parts.ts';
import { PolicySet, type PolicySetContext } from './policy-set.ts';
import type { Lease, Scanners } from './scanners.ts';

export interface LivePoliciesContext
  extends Omit<PolicySetContext, 'sightings' | 'retryRefusedMs'>,
    DenyContext {
  findings: Findings;
  /** Opened once, and only if a policy needs it. */
  openSightings: () => Promise<Sightings>;
  admissions: Admissions;
  scanners: Scanners;
}

export interface LivePoliciesSettings {
  policies: readonly ConditionSettings[];
  /** Milliseconds. */
  retryRefused: number;
}

interface Source {
  settings: ConditionSettings;
  files: WatchedFiles<PolicyParts>;
  parts: PolicyParts;
  scanner: Lease | undefined;
}

const LOOK_MS = 1_000;

export class LivePolicies implements Disposable {
  readonly #context: LivePoliciesContext;
  readonly #upstreams: UpstreamByHost;
  readonly #sources: readonly Source[];
  readonly #retryRefusedMs: number;
  readonly #sightings: Sightings | undefined;
  readonly #timer: Disposable;
  #isClosed = false;
  /** The policies that apply to some identities, by their places. */
  readonly #sets = new Map<string, PolicySet>();
  /** Of all policies, without a search for it. */
  #all: PolicySet | undefined;
  readonly #whose: readonly (readonly Who[] | undefined)[];
  readonly #isForAll: boolean;

  private constructor(
    sources: readonly Source[],
    retryRefusedMs: number,
    sightings: Sightings | undefined,
    upstreams: UpstreamByHost,
    context: LivePoliciesContext,
  ) {
    this.#context = context;
    this.#upstreams = upstreams;
    this.#sources = sources;
    this.#retryRefusedMs = retryRefusedMs;
    this.#sightings = sightings;
    this.#whose = sources.map(({ settings: { who } }) =>
      who === undefined ? undefined : [who].flat().flatMap((text) => parseWho(text) ?? []),
    );
    this.#isForAll = this.#whose.every((who) => who === undefined);
    this.publish();
    this.#timer = context.clock.every(LOOK_MS, () => void this.#look());
  }

  /**
   * @throws {FileError} a file cannot be read, or used
   * @throws the system's error if what was first seen when cannot be read
   */
  static async open(
    { policies, retryRefused }: LivePoliciesSettings,
    upstreams: UpstreamByHost,
    context: LivePoliciesContext,
  ): Promise<LivePolicies> {
    const isAboutAge = policies.some(({ minimumAge }) => minimumAge !== undefined);
    const sightings = isAboutAge ? await context.openSightings() : undefined;
    using stack = new DisposableStack();
    const sources: Source[] = [];
    for (const settings of policies) {
      const { name, scan } = settings;
      const scanner = scan && stack.use(await context.scanners.lease(name, scan));
      const surroundings = { ...context, upstreams, sightings, scanner };
      const parse = (contents: readonly Buffer[]) => makeParts(settings, contents, surroundings);
      const files = await WatchedFiles.open({ paths: filesOf(settings), parse }, context);
      sources.push({ settings, files, parts: await files.current(), scanner });
    }
    const live = stack.use(new LivePolicies(sources, retryRefused, sightings, upstreams, context));
    if (sightings !== undefined) await noteWhatIsCached(live.#policies(sources), sightings, context);
    stack.move();
    return live;
  }

  /** The names of all policies. */
  get names(): string[] {
    return this.#sources.map(({ settings }) => settings.name);
  }

  /** All policies. */
  get current(): PolicySet {
    this.#all ??= this.#setOf(this.#sources);
    return this.#all;
  }

  /** The policies that apply to what somebody asks for. */
  of(identity: Identity): PolicySet {
    if (this.#isForAll) return this.current;
    return this.#setOf(this.#sources.filter((_, at) => appliesTo(this.#whose[at], identity)));
  }

  /** Forgets what was decided, for whomever. */
  forget(): void {
    for (const set of this.#sets.values()) set.forget();
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#timer[Symbol.dispose]();
    this.#forgetSets();
    const { policyFilesUsable } = this.#context.metrics;
    for (const { settings, scanner } of this.#sources) {
      policyFilesUsable.remove({ policy: settings.name });
      scanner?.[Symbol.dispose]();
    }
  }

  /** Sets the metrics. */
  publish(): void {
    const { policyFilesUsable } = this.#context.metrics;
    for (const { settings, files } of this.#sources)
      policyFilesUsable.set({ policy: settings.name }, files.areUsable ? 1 : 0);
  }

  /** Never rejects: of files that cannot be used, the last content stays in use. */
  async #look(): Promise<void> {
    let isChanged = false;
    for (const source of this.#sources) {
      const parts = await source.files.current();
      isChanged ||= parts.hash !== source.parts.hash;
      source.parts = parts;
    }
    if (this.#isClosed) return; // the metrics are those of others now
    if (isChanged) this.#forgetSets();
    this.publish();
  }

  #forgetSets(): void {
    for (const set of this.#sets.values()) set[Symbol.dispose]();
    this.#sets.clear();
    this.#all = undefined;
  }

  #setOf(sources: readonly Source[]): PolicySet {
    const key = sources.map(({ settings }) => settings.name).join(' ');
    const known = this.#sets.get(key);
    if (known !== undefined) return known;
    const context = { ...this.#context, sightings: this.#sightings, retryRefusedMs: this.#retryRefusedMs };
    const set = new PolicySet(this.#policies(sources), context);
    this.#sets.set(key, set);
    return set;
  }

  #policies(sources: readonly Source[]): Policy[] {
    const context = { ...this.#context, upstreams: this.#upstreams };
    return sources.map(({ settings, parts }) => new Policy(settings, parts, context));
  }
}

/** The mirror's own work, and that of operators, has to pass all policies. */
function appliesTo(who: readonly Who[] | undefined, { kind, name }: Identity): boolean {
  if (who === undefined || kind === 'operator' || kind === 'mirror') return true;
  return who.some((one) => {
    if (one.kind === 'anonymous') return kind === 'anonymous';
    if (one.kind === 'somebody') return kind !== 'anonymous';
    // Where a name is not known, the policy counts.
    return one.kind === kind && (name === undefined || one.matches(name));
  });
}
