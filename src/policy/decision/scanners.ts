/**
 * The scanners in use, each for one policy. They are kept over a reload: a scanner has a database, which takes minutes to
 * fetch.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { PolicyPart } from '../parts/part.ts';
import type { ScanContext, ScanPart } from '../parts/scan/scan-part.ts';
import type { Scanner } from '../parts/scan/scanner/scanner.ts';
import type { ScanSettings } from '../parts/scan/scanner/settings.ts';
import type { Findings } from './findings.ts';

/** As in the configuration. */
export interface ScannerSettings
  extends Omit<ScanSettings, 'directory' | 'environment' | 'maxDirectoryBytes' | 'memoryBytes'> {
  /** Names of variables of ours that the scanner gets. */
  environment: readonly string[];
  /** Bytes of the scanner's files. */
  maxSize: number;
  /** Bytes that a scan may take; null sets no limit. */
  memory: number | null;
  /** Where the scanner pulls from. */
  listen: { host: string; port: number };
  url?: string | undefined;
  tls?: { certificate: string; key: string } | undefined;
}

export interface ScannersContext {
  /** The blobs of a manifest's repository. */
  contentOf: ScanContext['contentOf'];
  findings: Findings;
  metrics: Metrics;
  /** Scanners have folders below it. */
  directory: string;
  /** The mirror's own variables. */
  environment: Readonly<Record<string, string | undefined>>;
  isSealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

export interface Lease extends Disposable {
  /** Remembers what it has refused, and what the scanner has failed on. */
  part: PolicyPart;
}

interface Opened extends AsyncDisposable {
  scannerKey: string;
  partOf: (settings: ScannerSettings) => ScanPart;
  /** Of the settings that were used last. */
  part?: { key: string; part: ScanPart };
  leases: number;
}

export class Scanners implements AsyncDisposable {
  readonly #context: ScannersContext;
  readonly #opened = new Map<string, Opened>();
  readonly #closing = new Set<Promise<void>>();

  constructor(context: ScannersContext) {
    this.#context = context;
  }

  /**
   * Opens a scanner, or takes that which the policy has already.
   *
   * @throws {Error} the settings cannot be used, or not while the policy's scanner runs
   */
  async lease(policy: string, settings: ScannerSettings): Promise<Lease> {
    await Promise.all(this.#closing); // one of the same policy may still have the folder
    const opened = this.#opened.get(policy) ?? (await this.#open(policy, settings));
    // Two at a time would take the folder and the port from each other.
    if (opened.scannerKey !== scannerKeyOf(settings))
      throw new Error(
        `policy ${policy}: the program, limits and addresses of its scanner cannot change while it runs: restart, or give the policy another name`,
      );
    this.#opened.set(policy, opened);
    opened.leases += 1;
    let isHeld = true;
    return {
      part: partOf(opened, settings),
      [Symbol.dispose]: () => {
        if (isHeld) this.#release(policy, opened);
        isHeld = false;
      },
    };
  }

  /** Waits until nothing is left of any scanner. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#opened.values()].map((opened) => opened[Symbol.asyncDispose]()));
    await Promise.all(this.#closing);
  }

  #release(policy: string, opened: Opened): void {
    opened.leases -= 1;
    if (opened.leases > 0) return;
    this.#opened.delete(policy);
    const closed = Promise.resolve(opened[Symbol.asyncDispose]()).catch((error: unknown) =>
      this.#context.logger.error({ err: error }, 'a scanner could not be closed'),
    );
    const gone = closed.then(() => void this.#closing.delete(gone));
    this.#closing.add(gone);
  }

  async #open(policy: string, given: ScannerSettings): Promise<Opened> {
    const { listen, url, tls, environment: names, maxSize, memory, ...scan } = given;
    const [{ openScanner }, { ScanPart }, { QuarantineRoute }] = await Promise.all([
      import('../parts/scan/open-scanner.ts'),
      import('../parts/scan/scan-part.ts'),
      import('../parts/scan/quarantine/route.ts'),
    ]);
    const { logger, directory, environment: ours } = this.#context;
    await using stack = new AsyncDisposableStack();
    const files = tls && {
      cert: await readFile(tls.certificate, 'utf8'),
      key: await readFile(tls.key, 'utf8'),
    };
    const route = stack.use(
      await QuarantineRoute.open(
        { ...listen, ...(url === undefined ? {} : { url }), ...(files === undefined ? {} : { tls: files }) },
        logger,
      ),
    );
    const settings = {
      ...{ ...scan, directory: join(directory, policy) },
      environment: Object.fromEntries(names.map((name) => [name, ours[name] ?? ''])),
      ...{ maxDirectoryBytes: maxSize, memoryBytes: memory },
    };
    const scanner = stack.use(
      await openScanner(settings, { ...this.#context, path: ours['PATH'] ?? '', route }),
    );
    const open = stack.move();
    return {
      scannerKey: scannerKeyOf(given),
      partOf: (changed) => this.#partOf(policy, scanner, { ...settings, ...decisionsOf(changed) }, ScanPart),
      leases: 0,
      [Symbol.asyncDispose]: () => open.disposeAsync(),
    };
  }

  #partOf(policy: string, scanner: Scanner, settings: ScanSettings, Part: typeof ScanPart): ScanPart {
    const { findings, metrics } = this.#context;
    // Holds whatever becomes of the policy and its files: an image that was clean once is no new one.
    const name = `${policy}.clean`;
    return new Part(settings, {
      ...{ ...this.#context, scanner },
      count: (result) => metrics.policyScans.inc({ policy, result }),
      clean: {
        has: async (subject) => (await findings.recall(subject, name, '')) !== undefined,
        add: (subject) => findings.keep(subject, name, '', undefined),
      },
    });
  }
}

/** Remembers refusals and failures, and so is kept while the settings stay the same. */
function partOf(opened: Opened, settings: ScannerSettings): ScanPart {
  const key = JSON.stringify(settings);
  if (opened.part?.key !== key) opened.part = { key, part: opened.partOf(settings) };
  return opened.part.part;
}

/** The settings that say what becomes of a report. They can change while the scanner runs. */
function decisionsOf(settings: ScannerSettings) {
  const { failOn, ignoreUnfixed, except, rescan, onNewFinding, ...others } = settings;
  const { ifUnavailable, ifFailed, ifNothingFound } = others;
  return { failOn, ignoreUnfixed, except, ifUnavailable, ifFailed, ifNothingFound, rescan, onNewFinding };
}

function scannerKeyOf(settings: ScannerSettings): string {
  const decisions = Object.keys(decisionsOf(settings));
  return JSON.stringify(Object.entries(settings).filter(([name]) => !decisions.includes(name)));
}
