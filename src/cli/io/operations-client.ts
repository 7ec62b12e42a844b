/** Sends commands to a running mirror, over its operations API. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import type { ServerOption } from './options.ts';

export type OperationEvent = Record<string, unknown> & { event: string };

export class OperationsClient {
  readonly #server: string;

  constructor({ server }: ServerOption) {
    this.#server = server;
  }

  /** @throws {Error} there is no answer, or it is an error; the message is for the user */
  async json(method: 'GET' | 'POST' | 'DELETE', path: string): Promise<unknown> {
    return (await this.#send(method, path)).json();
  }

  /**
   * Starts an operation, and yields its events as they arrive.
   *
   * @throws {Error} the operation failed, or the connection ended before it was done
   */
  async *events(path: string, body?: unknown): AsyncGenerator<OperationEvent> {
    const reply = await this.#send('POST', path, body);
    if (reply.body !== null) yield* this.#eventsIn(Readable.fromWeb(reply.body));
  }

  /**
   * Requests a file. Its bytes are the body of the answer.
   *
   * @throws {Error} there is no answer, or it is an error
   */
  download(path: string, body: unknown): Promise<Response> {
    return this.#send('POST', path, body);
  }

  /**
   * Sends `file`, and yields the events as they arrive. Does not use fetch: it gives no answer before the whole file is
   * sent.
   *
   * @throws {Error} the operation failed, or the connection ended before it was done
   */
  async *upload(path: string, file: Readable, size: number): AsyncGenerator<OperationEvent> {
    const url = new URL(`${this.#server}/api${path}`);
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const sent = send(url, { method: 'POST', headers: { 'Content-Length': size } });
    const answered = Promise.withResolvers<IncomingMessage>();
    sent.once('response', answered.resolve);
    // Reports an error before the answer. Ignores one after it: the mirror does not want the rest of the file.
    const uploaded = pipeline(file, sent).catch(answered.reject);
    try {
      const reply = await answered.promise.catch((error: unknown) => this.#unreachable(error));
      if (reply.statusCode !== 200) throw this.#refused(reply.statusCode, await text(reply));
      yield* this.#eventsIn(reply);
    } finally {
      sent.destroy();
      await uploaded;
    }
  }

  async *#eventsIn(input: Readable): AsyncGenerator<OperationEvent> {
    for await (const line of this.#linesOf(input)) {
      const event = JSON.parse(line) as OperationEvent;
      if (event.event === 'error') throw new Error(String(event['message']));
      yield event;
      if (event.event === 'done') return;
    }
    throw this.#cutOff();
  }

  /** Yields the lines of an answer. Treats an error of the connection as its end. */
  async *#linesOf(input: Readable): AsyncGenerator<string> {
    try {
      yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
    } catch (error) {
      throw this.#cutOff(error);
    } finally {
      // Ends the input first: otherwise its end is an error of the readline interface, which nothing listens to any more.
      input.destroy();
    }
  }

  async #send(method: string, path: string, body?: unknown): Promise<Response> {
    const content = body === undefined ? {} : { body: JSON.stringify(body) };
    const response = await fetch(`${this.#server}/api${path}`, { method, ...content }).catch(
      (error: unknown) => this.#unreachable(error instanceof Error ? error.cause : error),
    );
    if (!response.ok) throw this.#refused(response.status, await response.text());
    return response;
  }

  #unreachable(cause: unknown): never {
    const reason = cause instanceof Error ? cause.message : '';
    throw new Error(
      `no answer from ${this.#server}${reason && ` (${reason})`}: is Millpond running? Give its operations listener with --server`,
      { cause },
    );
  }

  #refused(status: number | undefined, body: string): Error {
    const message = `${this.#server} answered with status ${status}, which is not an answer of Millpond's operations listener: check --server`;
    return new Error(messageIn(body) ?? message);
  }

  #cutOff(cause?: unknown): Error {
    return new Error(
      `the mirror at ${this.#server} closed the connection before it was done: see its log, then run the command again`,
      { cause },
    );
  }
}

function messageIn(body: string): string | undefined {
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === 'object' && json !== null && 'error' in json && typeof json.error === 'string')
      return json.error;
  } catch {
    // Leaves it to the caller: an answer that is not JSON is not one of Millpond.
  }
  return undefined;
}
