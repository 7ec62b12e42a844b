/** A scanner that speaks Harbor's pluggable scanner API, and pulls the image from the quarantine route. */
import type { Clock } from '../../../../clock.ts';
import type { Logger } from '../../../../telemetry/log.ts';
import type { Subject } from '../../part.ts';
import { Patience } from '../limits/patience.ts';
import { Turns } from '../limits/turns.ts';
import { withLimit } from '../limits/with-limit.ts';
import type { QuarantineContent } from '../quarantine/content.ts';
import type { Admitted, QuarantineRoute } from '../quarantine/route.ts';
import { readReport } from '../report/read-report.ts';
import { ReportError } from '../report/scan-report.ts';
import { ScannerHttp } from '../scanner/http.ts';
import type { Scanner, ScanOutcome } from '../scanner/scanner.ts';
import { AdapterApi, AdapterError } from './adapter-api.ts';

export interface AdapterSettings {
  /** URL of the adapter, without `/api/v1`. */
  adapter: string;
  /** How long one scan may take; milliseconds. */
  timeout: number;
  /** Scans at a time. */
  concurrency: number;
}

export interface AdapterContext {
  clock: Clock;
  logger: Logger;
  route: QuarantineRoute;
}

const HEALTH_MS = 30_000;

export class AdapterScanner implements Scanner {
  readonly #settings: AdapterSettings;
  readonly #context: AdapterContext;
  readonly #turns: Turns;
  readonly #http = new ScannerHttp();
  readonly #api: AdapterApi;
  readonly #closing = new AbortController();

  constructor(settings: AdapterSettings, context: AdapterContext) {
    this.#settings = settings;
    this.#context = context;
    this.#turns = new Turns(settings.concurrency);
    this.#api = new AdapterApi(settings.adapter, this.#http);
  }

  async scan(subject: Subject, content: QuarantineContent, outer: AbortSignal): Promise<ScanOutcome> {
    const signal = AbortSignal.any([outer, this.#closing.signal]);
    using _turn = await this.#turns.take(signal);
    const health = await this.#health(subject, signal);
    if ('kind' in health) return health;
    using patience = new Patience(this.#settings.timeout, this.#context.clock);
    using admitted = this.#context.route.admit(subject, content, patience);
    const outcome = await this.#ask(subject, admitted, health.type, patience, signal);
    admitted.admission.requireContent();
    return outcome;
  }

  /** Ends all scans. What the adapter has begun it ends itself: its token is worth nothing any more. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the scanner is closed'));
    await this.#http[Symbol.asyncDispose]();
  }

  /** The adapter says what it can do before it gets anything, so a failure here has nothing to do with the image. */
  async #health({ mediaType }: Subject, signal: AbortSignal): Promise<{ type: string } | ScanOutcome> {
    try {
      const type = await withLimit(HEALTH_MS, this.#context.clock, signal, (limited) =>
        this.#api.reportType(mediaType, limited),
      );
      return { type };
    } catch (error) {
      signal.throwIfAborted();
      return { kind: 'unavailable', reason: `it cannot be reached: ${messageOf(error)}` };
    }
  }

  /** From here on everything that goes wrong is a failure: the adapter was well a moment ago. */
  async #ask(
    { digest, mediaType }: Subject,
    { url, authorization, repository }: Admitted,
    type: string,
    patience: Patience,
    outer: AbortSignal,
  ): Promise<ScanOutcome> {
    const signal = AbortSignal.any([outer, patience.signal]);
    try {
      const artifact = { repository, digest, mime_type: mediaType };
      const id = await this.#api.request({ registry: { url, authorization }, artifact }, signal);
      for (;;) {
        const answer = await this.#api.report(id, type, signal);
        if ('report' in answer) {
          const question = { from: 'harbor', bytes: answer.report, expected: digest } as const;
          return { kind: 'report', report: await readReport(question, this.#context.clock, signal) };
        }
        await this.#context.clock.sleep(answer.retryMs, signal);
      }
    } catch (error) {
      outer.throwIfAborted();
      if (patience.signal.aborted) return { kind: 'failed', reason: messageOf(patience.signal.reason) };
      this.#context.logger.warn({ err: error, digest }, 'the scanner failed');
      const isSafe = error instanceof ReportError || error instanceof AdapterError;
      return { kind: 'failed', reason: isSafe ? error.message : 'the connection to it broke off' };
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown';
}
