/** The real Trivy as a child process, alone or with a server of its own. */
import type { Logger } from '../../../../telemetry/log.ts';
import type { Subject } from '../../part.ts';
import { type ChildResult, SpawnError } from '../child/child.ts';
import { Patience, PatienceError } from '../limits/patience.ts';
import { Turns } from '../limits/turns.ts';
import { withLimit } from '../limits/with-limit.ts';
import type { QuarantineContent } from '../quarantine/content.ts';
import type { QuarantineRoute } from '../quarantine/route.ts';
import { readReport } from '../report/read-report.ts';
import { ReportError } from '../report/scan-report.ts';
import { ScannerHttp } from '../scanner/http.ts';
import type { Scanner, ScanOutcome } from '../scanner/scanner.ts';
import type { ScanSettings } from '../scanner/settings.ts';
import { scanArguments } from './arguments.ts';
import { Databases } from './databases.ts';
import { bytesBelow } from './folders.ts';
import { whyNotWell } from './health.ts';
import { type RunContext, TooLargeError, TrivyRuns } from './runs.ts';

export interface TrivyContext extends RunContext {
  logger: Logger;
  route: QuarantineRoute;
  /** Whether the mirror is sealed: then nothing is fetched from a network. */
  isSealed: () => boolean;
}

const HEALTH_MS = 60_000;
/** With twice the timeout, later than all limits of ours. */
const ORPHAN_MS = 2 * 3_600_000;

export class TrivyScanner implements Scanner {
  readonly #settings: ScanSettings;
  readonly #context: TrivyContext;
  readonly #runs: TrivyRuns;
  readonly #turns: Turns;
  readonly #databases: Databases;
  readonly #http = new ScannerHttp();
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<unknown>>();

  private constructor(settings: ScanSettings, context: TrivyContext, runs: TrivyRuns) {
    this.#settings = settings;
    this.#context = context;
    this.#runs = runs;
    this.#turns = new Turns(settings.concurrency);
    const { clock, logger } = context;
    // A server has the other one; what is in a jar is found by the client.
    this.#databases = new Databases(
      settings.trivyServer === undefined ? ['vulnerabilities', 'java'] : ['java'],
      {
        ...{ clock, logger, runs, turns: this.#turns, closing: this.#closing.signal },
        maxBytes: () => this.#half(),
      },
    );
  }

  /** Makes its folders, and begins to fetch its databases. @throws as {@link TrivyRuns.open} */
  static async open(settings: ScanSettings, context: TrivyContext): Promise<TrivyScanner> {
    const scanner = new TrivyScanner(settings, context, await TrivyRuns.open(settings, context));
    if (!context.isSealed()) scanner.#databases.updateIfDue();
    return scanner;
  }

  async scan(subject: Subject, content: QuarantineContent, signal: AbortSignal): Promise<ScanOutcome> {
    const running = this.#scan(subject, content, AbortSignal.any([signal, this.#closing.signal]));
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Ends all scans, and waits until nothing of them is left. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the scanner is closed'));
    await Promise.allSettled(this.#running);
    await this.#databases.running;
    await this.#http[Symbol.asyncDispose]();
  }

  async #scan(subject: Subject, content: QuarantineContent, signal: AbortSignal): Promise<ScanOutcome> {
    if (!this.#context.isSealed()) this.#databases.updateIfDue();
    const update = this.#databases.running;
    const outcome = await this.#scanInTurn(subject, content, signal);
    if (outcome.kind !== 'unavailable' || update === undefined) return outcome;
    // Its first database may be on its way.
    await Promise.race([update, once(signal)]);
    signal.throwIfAborted();
    return this.#scanInTurn(subject, content, signal);
  }

  async #scanInTurn(subject: Subject, content: QuarantineContent, signal: AbortSignal): Promise<ScanOutcome> {
    using _turn = await this.#turns.take(signal);
    const reason = await this.#whyNotWell(signal);
    if (reason !== undefined) return { kind: 'unavailable', reason };
    const maxBytes = await this.#share();
    if (maxBytes <= 0)
      return { kind: 'unavailable', reason: 'its databases take all that its directory may hold' };
    using patience = new Patience(this.#settings.timeout, this.#context.clock);
    using admitted = this.#context.route.admit(subject, content, patience);
    const { host } = new URL(admitted.url);
    const reference = `${host}/${admitted.repository}@${subject.digest}`;
    const run = {
      args: scanArguments({
        ...{ settings: this.#settings, cache: this.#runs.folders.cache, reference },
        ...{ timeout: 2 * this.#settings.timeout + ORPHAN_MS, sealed: this.#context.isSealed() },
      }),
      maxBytes,
      credentials: { [host]: { auth: admitted.authorization.replace('Basic ', '') } },
    };
    let outcome: ScanOutcome;
    try {
      const either = AbortSignal.any([signal, patience.signal]);
      outcome = await this.#outcomeOf(await this.#runs.run(run, either), reference, either);
    } catch (error) {
      signal.throwIfAborted();
      outcome = outcomeOfError(error);
    }
    admitted.admission.requireContent();
    return outcome;
  }

  async #whyNotWell(signal: AbortSignal): Promise<string | undefined> {
    const { trivyServer: url } = this.#settings;
    const server = url === undefined ? undefined : { url, http: this.#http };
    try {
      return await withLimit(HEALTH_MS, this.#context.clock, signal, (limited) =>
        whyNotWell(this.#runs, server, limited),
      );
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof PatienceError || error instanceof TooLargeError)
        return `it does not tell its version: ${error.message}`;
      throw error;
    }
  }

  /** What one scan's files may take, so that all together stay within the limit: no scan is ended for another's. */
  async #share(): Promise<number> {
    return Math.floor((await this.#half()) / this.#settings.concurrency);
  }

  /** Of what the databases leave free: one half is for the scans, and one for an update. */
  async #half(): Promise<number> {
    return (this.#settings.maxDirectoryBytes - (await bytesBelow(this.#runs.folders.cache))) / 2;
  }

  async #outcomeOf(
    { code, stdout, stderr, overflowed }: ChildResult,
    expected: string,
    signal: AbortSignal,
  ): Promise<ScanOutcome> {
    if (overflowed) return { kind: 'failed', reason: 'the report is too long' };
    if (code !== 0) {
      this.#context.logger.warn({ code, stderr, reference: expected }, 'the scanner failed');
      return { kind: 'failed', reason: code === null ? 'it was killed' : `it ended with exit code ${code}` };
    }
    const question = { from: 'trivy', bytes: stdout, expected } as const;
    return { kind: 'report', report: await readReport(question, this.#context.clock, signal) };
  }
}

/** @throws what is no outcome */
function outcomeOfError(error: unknown): ScanOutcome {
  if (error instanceof SpawnError)
    return { kind: 'unavailable', reason: `it cannot be started: ${error.message}` };
  if (error instanceof PatienceError || error instanceof TooLargeError || error instanceof ReportError)
    return { kind: 'failed', reason: error.message };
  throw error;
}

function once(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
