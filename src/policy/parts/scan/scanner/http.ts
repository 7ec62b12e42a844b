/** Asks a scanner over HTTP, within limits: it may answer anything, for ever. */
import { Agent, type Dispatcher, request } from 'undici';

const CONNECT_MS = 10_000;

export interface HttpAnswer {
  status: number;
  headers: Dispatcher.ResponseData['headers'];
  body: Buffer;
}

export interface HttpQuestion {
  method: 'GET' | 'POST';
  headers: Readonly<Record<string, string>>;
  body?: string;
  /** A longer answer is an error. */
  maxBytes: number;
}

export class ScannerHttp implements AsyncDisposable {
  /** Waits as long as `signal` lets it: the limits are those of the scan. */
  readonly #agent = new Agent({ connect: { timeout: CONNECT_MS }, headersTimeout: 0, bodyTimeout: 0 });

  /** Follows no redirect: an adapter says by 302 that it is not ready. @throws {Error} there is no answer, or a longer one */
  async ask(
    url: URL,
    { method, headers, body, maxBytes }: HttpQuestion,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const reply = await request(url, {
      ...{ method, headers, signal, dispatcher: this.#agent },
      ...(body === undefined ? {} : { body }),
    });
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of reply.body as AsyncIterable<Buffer>) {
      length += chunk.length;
      // Leaving the loop destroys the body.
      if (length > maxBytes) throw new Error(`the answer of ${url.host} is longer than ${maxBytes} bytes`);
      chunks.push(chunk);
    }
    return { status: reply.statusCode, headers: reply.headers, body: Buffer.concat(chunks, length) };
  }

  /** Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}
