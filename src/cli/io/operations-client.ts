/** How commands talk to a running mirror: over its operations API. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';

const DEFAULT_SERVER = 'http://127.0.0.1:5001';

/** What {@link withServerOption} leaves for a command's action. */
export interface ServerOption {
  server: string;
}

export function withServerOption(command: Command): Command {
  return command.option('--server <url>', 'operations listener of the mirror', DEFAULT_SERVER);
}

export type OperationEvent = Record<string, unknown> & { event: string };

export class OperationsClient {
  readonly #server: string;

  constructor({ server }: ServerOption) {
    this.#server = server.replace(/\/+$/, '');
  }

  /** @throws {Error} nobody answers, or the answer is an error; the message is for the user */
  async json(method: 'GET' | 'POST' | 'DELETE', path: string): Promise<unknown> {
    return (await this.#send(method, path)).json();
  }

  /**
   * Begins an operation, and gives its events as they come.
   *
   * @throws {Error} it failed, or its end did not come
   */
  async *events(path: string, body?: unknown): AsyncGenerator<OperationEvent> {
    const reply = await this.#send('POST', path, body);
    if (reply.body !== null) yield* this.#eventsIn(Readable.fromWeb(reply.body));
  }

  /**
   * Asks for a file, to be read from the body of the answer.
   *
   * @throws {Error} nobody answers, or the answer is an error
   */
  download(path: string, body: unknown): Promise<Response> {
    return this.#send('POST', path, body);
  }

  /**
   * Sends `file`, and gives the events as they come; they do while it is sent, which is why this is not fetch.
   *
   * @throws {Error} it failed, or its end did not come
   */
  async *upload(path: string, file: Readable, size: number): AsyncGenerator<OperationEvent> {
    const url = new URL(`${this.#server}/api${path}`);
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const sent = send(url, { method: 'POST', headers: { 'Content-Length': size } });
    const answered = Promise.withResolvers<IncomingMessage>();
    sent.once('response', answered.resolve);
    // Before the answer an error is the answer; after it, that the rest of the file is not wanted.
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
    throw new Error(`the mirror at ${this.#server} broke off before it was done`);
  }

  /** What goes wrong with the connection is as good as its end; after the last line that is read, nothing does. */
  async *#linesOf(input: Readable): AsyncGenerator<string> {
    try {
      yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
    } catch (error) {
      throw new Error(`the mirror at ${this.#server} broke off before it was done`, { cause: error });
    } finally {
      // Else the end of the connection would be an error of the interface, which has no listener any more.
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
      `no Millpond answers at ${this.#server}${reason && ` (${reason})`}: is it running? --server names its operations listener`,
      { cause },
    );
  }

  #refused(status: number | undefined, body: string): Error {
    return new Error(messageIn(body) ?? `${this.#server} answered ${status}: is it a Millpond?`);
  }
}

function messageIn(body: string): string | undefined {
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === 'object' && json !== null && 'error' in json && typeof json.error === 'string')
      return json.error;
  } catch {
    // no answer of ours
  }
  return undefined;
}
