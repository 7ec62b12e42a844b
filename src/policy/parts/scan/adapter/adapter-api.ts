/**
 * The requests of Harbor's pluggable scanner API, version 1 (its OpenAPI document: `/metadata`, `/scan`,
 * `/scan/{scan_request_id}/report`).
 */
import { z } from 'zod';
import type { HttpAnswer, ScannerHttp } from '../scanner/http.ts';

const REQUEST_TYPE = 'application/vnd.scanner.adapter.scan.request+json; version=1.0';
const RESPONSE_TYPE = 'application/vnd.scanner.adapter.scan.response+json; version=1.0';
const METADATA_TYPE =
  'application/vnd.scanner.adapter.metadata+json; version=1.1, application/vnd.scanner.adapter.metadata+json; version=1.0';
/** In the order in which we prefer them. They have the same content. */
const REPORT_TYPES = [
  'application/vnd.security.vulnerability.report; version=1.1',
  'application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0',
];

const MAX_ANSWER_BYTES = 1024 * 1024;
const MAX_REPORT_BYTES = 64 * 1024 * 1024;
const RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;

const metadata = z.object({
  capabilities: z.array(
    z.object({ consumes_mime_types: z.array(z.string()), produces_mime_types: z.array(z.string()) }),
  ),
});
/** It becomes a part of a path. */
const accepted = z.object({ id: z.string().regex(/^[\w.~-]{1,200}$/) });

export interface ScanRequest {
  registry: { url: string; authorization: string };
  artifact: { repository: string; digest: string; mime_type: string };
}

export type ReportAnswer = { report: Buffer } | { retryMs: number };

/** It answered, and not as it should. The message quotes nothing of the answer. */
export class AdapterError extends Error {
  override readonly name = 'AdapterError';
}

export class AdapterApi {
  readonly #base: URL;
  readonly #http: ScannerHttp;

  /** @param url of the adapter, without `/api/v1` */
  constructor(url: string, http: ScannerHttp) {
    this.#base = new URL('api/v1/', url.endsWith('/') ? url : `${url}/`);
    this.#http = http;
  }

  /** The type of report that it gives for a type of manifest. @throws {AdapterError} it gives none @throws {Error} no answer */
  async reportType(manifestType: string, signal: AbortSignal): Promise<string> {
    const answer = await this.#ask('metadata', METADATA_TYPE, signal);
    const { capabilities } = parse(answer, 200, metadata);
    const produced = capabilities
      .filter((capability) => capability.consumes_mime_types.some((type) => isSame(type, manifestType)))
      .flatMap((capability) => capability.produces_mime_types);
    const type = REPORT_TYPES.find((type) => produced.some((other) => isSame(other, type)));
    if (type === undefined)
      throw new AdapterError(`the adapter gives no report of vulnerabilities for ${manifestType}`);
    return type;
  }

  /** @returns the name of the scan @throws {AdapterError} it is not accepted @throws {Error} no answer */
  async request(scan: ScanRequest, signal: AbortSignal): Promise<string> {
    const url = new URL('scan', this.#base);
    const headers = { 'content-type': REQUEST_TYPE, accept: RESPONSE_TYPE };
    const question = {
      method: 'POST',
      headers,
      body: JSON.stringify(scan),
      maxBytes: MAX_ANSWER_BYTES,
    } as const;
    return parse(await this.#http.ask(url, question, signal), 202, accepted).id;
  }

  /** @throws {AdapterError} the scan has failed @throws {Error} no answer */
  async report(id: string, type: string, signal: AbortSignal): Promise<ReportAnswer> {
    const answer = await this.#ask(`scan/${id}/report`, type, signal, MAX_REPORT_BYTES);
    if (answer.status === 302) return { retryMs: retryMsOf(answer) };
    if (answer.status !== 200)
      throw new AdapterError(`the adapter answers ${answer.status} instead of a report`);
    return { report: answer.body };
  }

  #ask(path: string, accept: string, signal: AbortSignal, maxBytes = MAX_ANSWER_BYTES): Promise<HttpAnswer> {
    return this.#http.ask(
      new URL(path, this.#base),
      { method: 'GET', headers: { accept }, maxBytes },
      signal,
    );
  }
}

function parse<T>({ status, body }: HttpAnswer, expected: number, schema: z.ZodType<T>): T {
  if (status !== expected) throw new AdapterError(`the adapter answers ${status} instead of ${expected}`);
  try {
    return schema.parse(JSON.parse(body.toString('utf8')));
  } catch {
    throw new AdapterError('the adapter answers with something else than the API says');
  }
}

/** Harbor's header is `Refresh-After`, in seconds; `Retry-After` is what others write. */
function retryMsOf({ headers }: HttpAnswer): number {
  const seconds = Number(headers['refresh-after'] ?? headers['retry-after'] ?? Number.NaN);
  if (!Number.isFinite(seconds)) return RETRY_MS;
  return Math.min(Math.max(seconds * 1_000, RETRY_MS), LONGEST_RETRY_MS);
}

/** Media types are written with and without a space before their parameters. */
function isSame(a: string, b: string): boolean {
  return a.replaceAll(' ', '').toLowerCase() === b.replaceAll(' ', '').toLowerCase();
}
