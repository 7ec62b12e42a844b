/** The policies in use: made of the configuration and of the files that it names. A changed file makes them anew. */
import { compileRepositoryPattern, type UpstreamByHost } from '../access/rules/repositories.ts';
import { WatchedFiles } from '../files/watched-files.ts';
import type { Digest } from '../oci/digest.ts';
import { AgePart } from './parts/age/age-part.ts';
import { noteWhatIsCached } from './parts/age/first-look.ts';
import type { Sightings } from './parts/age/sightings.ts';
import { readDenyList } from './parts/deny/deny-list.ts';
import { type DenyContext, DenyPart } from './parts/deny/deny-part.ts';
import { Policy, type PolicySettings } from './policy.ts';
import { PolicySet, type PolicySetContext } from './policy-set.ts';

export interface LivePolicySettings extends PolicySettings {
  deny?: DenySettings | undefined;
  /** Milliseconds. */
  minimumAge?: number | undefined;
}

interface DenySettings {
  /** Files. */
  digests: readonly string[];
  /** Patterns. */
  repositories: readonly string[];
}

export interface LivePoliciesContext extends Omit<PolicySetContext, 'sightings'>, DenyContext {
  /** Opened once, and only if a policy needs it. */
  openSightings: () => Promise<Sightings>;
}

type DeniedDigests = ReadonlySet<Digest>;

interface Source {
  settings: LivePolicySettings;
  files: WatchedFiles<DeniedDigests>;
  denied: DeniedDigests;
}

const LOOK_MS = 1_000;

export class LivePolicies implements Disposable {
  readonly #context: LivePoliciesContext;
  readonly #upstreams: UpstreamByHost;
  readonly #sources: Source[];
  readonly #sightings: Sightings | undefined;
  readonly #timer: Disposable;
  #current: PolicySet;

  private constructor(
    sources: Source[],
    sightings: Sightings | undefined,
    upstreams: UpstreamByHost,
    context: LivePoliciesContext,
  ) {
    this.#context = context;
    this.#upstreams = upstreams;
    this.#sources = sources;
    this.#sightings = sightings;
    this.#current = this.#makeSet();
    this.publish();
    this.#timer = context.clock.every(LOOK_MS, () => void this.#look());
  }

  /**
   * @throws {FileError} a file cannot be read, or has a bad line
   * @throws the system's error if what was first seen when cannot be read
   */
  static async open(
    settings: readonly LivePolicySettings[],
    upstreams: UpstreamByHost,
    context: LivePoliciesContext,
  ): Promise<LivePolicies> {
    const sources: Source[] = [];
    for (const each of settings) {
      const paths = each.deny?.digests ?? [];
      const parse = (contents: readonly Buffer[]) =>
        new Set(contents.flatMap((content, at) => readDenyList(content, paths[at] ?? '')));
      const files = await WatchedFiles.open<DeniedDigests>({ paths, parse }, context);
      sources.push({ settings: each, files, denied: await files.current() });
    }
    const isAboutAge = settings.some(({ minimumAge }) => minimumAge !== undefined);
    const sightings = isAboutAge ? await context.openSightings() : undefined;
    const live = new LivePolicies(sources, sightings, upstreams, context);
    if (sightings !== undefined) await noteWhatIsCached(live.#policies(), sightings, context);
    return live;
  }

  get current(): PolicySet {
    return this.#current;
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    const { policyFilesUsable } = this.#context.metrics;
    for (const { settings } of this.#sources) policyFilesUsable.remove({ policy: settings.name });
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
      const denied = await source.files.current();
      isChanged ||= denied !== source.denied;
      source.denied = denied;
    }
    if (isChanged) this.#current = this.#makeSet();
    this.publish();
  }

  #makeSet(): PolicySet {
    return new PolicySet(this.#policies(), { ...this.#context, sightings: this.#sightings });
  }

  #policies(): Policy[] {
    return this.#sources.map(({ settings, denied }) => {
      const { deny, minimumAge } = settings;
      const parts = {
        deny: deny && this.#denyPart(deny, denied),
        age:
          minimumAge === undefined || this.#sightings === undefined
            ? undefined
            : new AgePart(minimumAge, { clock: this.#context.clock, sightings: this.#sightings }),
      };
      return new Policy(settings, parts, this.#upstreams);
    });
  }

  #denyPart({ repositories }: DenySettings, denied: DeniedDigests): DenyPart {
    const patterns = repositories.map((pattern) => compileRepositoryPattern(pattern, this.#upstreams));
    return new DenyPart(denied, (name) => patterns.some((matches) => matches(name)), this.#context);
  }
}
