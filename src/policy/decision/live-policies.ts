/** The policies in use: made of the configuration and of the files that it names. A changed file makes them anew. */
import type { UpstreamByHost } from '../../access/rules/repositories.ts';
import { WatchedFiles } from '../../files/watched-files.ts';
import { noteWhatIsCached } from '../parts/age/first-look.ts';
import type { Sightings } from '../parts/age/sightings.ts';
import type { DenyContext } from '../parts/deny/deny-part.ts';
import type { Admissions } from './admissions.ts';
import { Findings, type FindingsContext } from './findings.ts';
import { Policy, type PolicyParts } from './policy.ts';
import { type ConditionSettings, filesOf, makeParts, type PartsContext } from './policy-parts.ts';
import { PolicySet, type PolicySetContext } from './policy-set.ts';
import type { Lease, Scanners } from './scanners.ts';

export interface LivePoliciesContext
  extends Omit<PolicySetContext, 'sightings' | 'retryRefusedMs'>,
    DenyContext,
    FindingsContext {
  /** Opened once, and only if a policy needs it. */
  openSightings: () => Promise<Sightings>;
  admissions: Admissions;
  scanners: Scanners;
  contentOf: PartsContext['contentOf'];
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
  readonly #findings: Findings;
  readonly #timer: Disposable;
  #current: PolicySet;

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
    this.#findings = new Findings(context);
    this.#current = this.#makeSet();
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
    const findings = new Findings(context);
    const sources: Source[] = [];
    for (const settings of policies) {
      const { name, scan } = settings;
      const scanner = scan && stack.use(await context.scanners.lease(name, scan));
      const surroundings = { ...context, upstreams, sightings, findings, scanner };
      const parse = (contents: readonly Buffer[]) => makeParts(settings, contents, surroundings);
      const files = await WatchedFiles.open({ paths: filesOf(settings), parse }, context);
      sources.push({ settings, files, parts: await files.current(), scanner });
    }
    const live = new LivePolicies(sources, retryRefused, sightings, upstreams, context);
    stack.move();
    if (sightings !== undefined) await noteWhatIsCached(live.#policies(), sightings, context);
    return live;
  }

  /** The names of all policies. */
  get names(): string[] {
    return this.#sources.map(({ settings }) => settings.name);
  }

  get current(): PolicySet {
    return this.#current;
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    this.#current[Symbol.dispose]();
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
    if (isChanged) {
      this.#current[Symbol.dispose]();
      this.#current = this.#makeSet();
    }
    this.publish();
  }

  #makeSet(): PolicySet {
    const context = { ...this.#context, sightings: this.#sightings, retryRefusedMs: this.#retryRefusedMs };
    return new PolicySet(this.#policies(), context);
  }

  #policies(): Policy[] {
    return this.#sources.map(
      ({ settings, parts }) =>
        new Policy(settings, parts, {
          ...{ findings: this.#findings, upstreams: this.#upstreams },
          admissions: this.#context.admissions,
        }),
    );
  }
}
