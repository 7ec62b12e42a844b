/** The policies in use: made of the configuration and of the files that it names. A changed file makes them anew. */
import { compileRepositoryPattern, type UpstreamByHost } from '../access/rules/repositories.ts';
import { WatchedFiles } from '../files/watched-files.ts';
import type { Digest } from '../oci/digest.ts';
import { readDenyList } from './parts/deny/deny-list.ts';
import { type DenyContext, DenyPart } from './parts/deny/deny-part.ts';
import { Policy, type PolicySettings } from './policy.ts';
import { PolicySet, type PolicySetContext } from './policy-set.ts';

export interface LivePolicySettings extends PolicySettings {
  deny: {
    /** Files. */
    digests: readonly string[];
    /** Patterns. */
    repositories: readonly string[];
  };
}

export interface LivePoliciesContext extends PolicySetContext, DenyContext {}

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
  readonly #timer: Disposable;
  #current: PolicySet;

  private constructor(sources: Source[], upstreams: UpstreamByHost, context: LivePoliciesContext) {
    this.#context = context;
    this.#upstreams = upstreams;
    this.#sources = sources;
    this.#current = this.#makeSet();
    this.publish();
    this.#timer = context.clock.every(LOOK_MS, () => void this.#look());
  }

  /** @throws {FileError} a file cannot be read, or has a bad line */
  static async open(
    policies: readonly LivePolicySettings[],
    upstreams: UpstreamByHost,
    context: LivePoliciesContext,
  ): Promise<LivePolicies> {
    const sources: Source[] = [];
    for (const settings of policies) {
      const paths = settings.deny.digests;
      const parse = (contents: readonly Buffer[]) =>
        new Set(contents.flatMap((content, at) => readDenyList(content, paths[at] ?? '')));
      const files = await WatchedFiles.open<DeniedDigests>({ paths, parse }, context);
      sources.push({ settings, files, denied: await files.current() });
    }
    return new LivePolicies(sources, upstreams, context);
  }

  get current(): PolicySet {
    return this.#current;
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    for (const { settings } of this.#sources)
      this.#context.metrics.policyFilesUsable.remove({ policy: settings.name });
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

  /** Sets the metrics. */
  publish(): void {
    for (const { settings, files } of this.#sources)
      this.#context.metrics.policyFilesUsable.set({ policy: settings.name }, files.areUsable ? 1 : 0);
  }

  #makeSet(): PolicySet {
    const policies = this.#sources.map(({ settings, denied }) => {
      const patterns = settings.deny.repositories.map((pattern) =>
        compileRepositoryPattern(pattern, this.#upstreams),
      );
      const isDenied = (name: string) => patterns.some((matches) => matches(name));
      return new Policy(settings, new DenyPart(denied, isDenied, this.#context), this.#upstreams);
    });
    return new PolicySet(policies, this.#context);
  }
}
