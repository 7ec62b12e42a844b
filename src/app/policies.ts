/** Policies, opened as the configuration says. Loaded only where it has some. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Catalog } from '../cache/catalog/catalog.ts';
import type { IndexStore } from '../cache/index/index-store.ts';
import type { StorageFaults } from '../cache/store/storage-faults.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { Environment } from '../config/secrets.ts';
import { upstreamByHost } from '../config/upstream-names.ts';
import type { MirroredUpstream } from '../mirror/mirrored-upstream.ts';
import { Admissions } from '../policy/decision/admissions.ts';
import { Findings } from '../policy/decision/findings.ts';
import { Listings } from '../policy/decision/listings.ts';
import { LivePolicies } from '../policy/decision/live-policies.ts';
import { Notifier } from '../policy/decision/notifier.ts';
import { Scanners } from '../policy/decision/scanners.ts';
import { PolicyDoor } from '../policy/door/policy-door.ts';
import { PolicyOffice } from '../policy/door/policy-office.ts';
import { Sightings } from '../policy/parts/age/sightings.ts';
import { MirrorEvidence } from '../policy/parts/evidence.ts';
import { MirrorContent } from '../policy/parts/scan/mirror-content.ts';
import type { Identity, RequestContext } from '../request-context.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Mirrors } from './mirrors.ts';

export interface PoliciesContext {
  catalog: Catalog;
  index: IndexStore;
  faults: StorageFaults;
  cacheDirectory: string;
  environment: Environment;
  isSealed: () => boolean;
  /** Ends all requests to upstreams. */
  cutOff: () => Promise<void>;
  upstreamNamed: (name: string) => MirroredUpstream | undefined;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}

/** The policies of one configuration. */
export interface OpenPolicies extends Disposable {
  door: PolicyDoor;
  office: PolicyOffice;
  /** Sets the metrics. */
  publish(): void;
}

/** Opens policies, and keeps over a reload what they share. */
export class Policies implements AsyncDisposable {
  readonly #mirrors: Mirrors;
  readonly #context: PoliciesContext;
  readonly #findings: Findings;
  readonly #scanners: Scanners;
  readonly #running = new Set<Promise<unknown>>();
  /** By URL. Kept to the end: they know what was told, and what was decided before a reload is told still. */
  readonly #notifiers = new Map<string, Notifier>();
  #sightings: Sightings | undefined;
  #admissions: Admissions | undefined;

  constructor(mirrors: Mirrors, context: PoliciesContext) {
    this.#mirrors = mirrors;
    this.#context = context;
    this.#findings = new Findings(context);
    this.#scanners = new Scanners({
      ...{ ...context, findings: this.#findings, directory: join(context.cacheDirectory, 'scan') },
      contentOf: (subject) =>
        new MirrorContent(subject, this.#upstreamOf(subject), mirrors.blobs, ourRequest()),
    });
  }

  /** @throws {FileError} a file of a policy cannot be used @throws {Error} a scanner cannot be opened */
  async open(config: Config): Promise<OpenPolicies> {
    const mirrors = this.#mirrors;
    const { catalog, index, clock, logger } = this.#context;
    this.#admissions ??= await Admissions.open(this.#context.cacheDirectory, this.#context.logger);
    const admissions = this.#admissions;
    const listings = new Listings({ catalog, index, manifests: mirrors.manifestStore });
    const notifier = this.#notifierFor(config.notify);
    const live = await LivePolicies.open(config, upstreamByHost(config), {
      ...{
        ...this.#context,
        listings,
        admissions,
        findings: this.#findings,
        scanners: this.#scanners,
        notifier,
      },
      openSightings: () => this.#openSightings(),
      track: (work) => this.#track(work),
      evidenceOf: (subject, signal) =>
        new MirrorEvidence(subject, this.#upstreamOf(subject), mirrors, { ...ourRequest(), signal }),
    });
    const { policyWait: policyWaitMs } = config;
    const policies = (identity?: Identity) => (identity === undefined ? live.current : live.of(identity));
    return {
      door: new PolicyDoor({ index, listings, clock, policyWaitMs, policies }),
      office: new PolicyOffice({ admissions, clock, logger, index, listings, live }),
      publish: () => live.publish(),
      [Symbol.dispose]: () => live[Symbol.dispose](),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What runs still would write into the cache after it is closed.
    if (this.#running.size > 0) await this.#context.cutOff();
    await Promise.allSettled(this.#running);
    for (const notifier of this.#notifiers.values()) await notifier[Symbol.asyncDispose]();
    await this.#scanners[Symbol.asyncDispose]();
    await this.#sightings?.[Symbol.asyncDispose]();
  }

  #track(work: Promise<unknown>): void {
    const ended = work.then(
      () => undefined,
      () => undefined, // told to those who wait for it
    );
    this.#running.add(ended);
    void ended.then(() => this.#running.delete(ended));
  }

  #notifierFor(url: string | undefined): Notifier | undefined {
    if (url === undefined) return undefined;
    const notifier = this.#notifiers.get(url) ?? new Notifier(url, this.#context);
    this.#notifiers.set(url, notifier);
    return notifier;
  }

  async #openSightings(): Promise<Sightings> {
    this.#sightings ??= await Sightings.open(this.#context.cacheDirectory, this.#context);
    return this.#sightings;
  }

  #upstreamOf({ upstream: name }: { upstream: string }): MirroredUpstream {
    const upstream = this.#context.upstreamNamed(name);
    if (upstream === undefined) throw new Error(`${name} is not an upstream any more`);
    return upstream;
  }
}

/** A request on behalf of a policy. */
function ourRequest(): RequestContext {
  return { id: `policy-${randomUUID()}`, identity: { kind: 'mirror' } };
}
