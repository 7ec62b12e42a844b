/**
 * The scanners in use, each for one policy. They are kept over a reload that does not change their settings: a scanner has
 * a database, which takes minutes to fetch.
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
  part: PolicyPart;
  leases: number;
}

export class Scanners implements AsyncDisposable {
  readonly #context: ScannersContext;
  readonly #opened = new Map<string, Opened>();
  readonly #closing = new Set<Promise<void>>();

  constructor(context: ScannersContext) {
    this.#context = context;
  }

  /** Opens a scanner, or shares that of an equal policy. @throws {Error} the settings cannot be used */
  async lease(policy: string, settings: ScannerSettings): Promise<Lease> {
    const key = JSON.stringify([policy, settings]);
    await Promise.all(this.#closing); // one of the same policy may still have the folder
    const opened = this.#opened.get(key) ?? (await this.#open(policy, settings));
    this.#opened.set(key, opened);
    opened.leases += 1;
    let isHeld = true;
    return {
      part: opened.part,
      [Symbol.dispose]: () => {
        if (isHeld) this.#release(key, opened);
        isHeld = false;
      },
    };
  }

  /** Waits until nothing is left of any scanner. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#opened.values()].map((opened) => opened[Symbol.asyncDispose]()));
    await Promise.all(this.#closing);
  }

  #release(key: string, opened: Opened): void {
    opened.leases -= 1;
    if (opened.leases > 0) return;
    this.#opened.delete(key);
    const closed = Promise.resolve(opened[Symbol.asyncDispose]()).catch((error: unknown) =>
      this.#context.logger.error({ err: error }, 'a scanner could not be closed'),
    );
    const gone = closed.then(() => void this.#closing.delete(gone));
    this.#closing.add(gone);
  }

  async #open(
    policy: string,
    { listen, url, tls, environment: names, maxSize, memory, ...scan }: ScannerSettings,
  ): Promise<Opened> {
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
      part: this.#partOf(policy, scanner, settings, ScanPart),
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
