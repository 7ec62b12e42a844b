/** Sends commands to a running mirror, over its operations API. */
import { readFile } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { getCACertificates } from 'node:tls';
import { ConfigError, type ConfigProblem } from '../../config/errors.ts';
import { unreadable } from './files.ts';
import type { ServerOptions } from './options.ts';
import type { Surroundings } from './surroundings.ts';

export type OperationEvent = Record<string, unknown> & { event: string };

type Method = 'GET' | 'POST' | 'DELETE';

/** What to do after a refusal, besides what the mirror says. */
const ADVICE: Partial<Record<number, string>> = {
  401: 'set MILLPOND_TOKEN to a token of this mirror',
  403: 'ask for a rule in its configuration, or use another token',
};

export class OperationsClient {
  readonly #server: string;
  readonly #token: string | undefined;
  /** Path of a PEM file. */
  readonly #ca: string | undefined;
  #authorities: Promise<string[]> | undefined;

  constructor(
    { server, token, ca }: ServerOptions & { server: string },
    { environment, cwd }: Pick<Surroundings, 'environment' | 'cwd'>,
  ) {
    this.#server = server;
    this.#token = token ?? (environment['MILLPOND_TOKEN'] || undefined);
    this.#ca = ca === undefined ? undefined : resolve(cwd, ca);
  }

  /** @throws {Error} there is no answer, or it is an error; the message is for the user */
  async json(method: Method, path: string, sent?: unknown): Promise<unknown> {
    const reply = await this.#send(method, path, jsonBody(sent));
    const body = await text(reply).catch((error: unknown) => {
      throw this.#cutOff(error);
    });
    return JSON.parse(body);
  }

  /**
   * Starts an operation, and yields its events as they arrive.
   *
   * @throws {Error} the operation failed, or the connection ended before it was done
   */
  async *events(path: string, body?: unknown): AsyncGenerator<OperationEvent> {
    yield* this.#eventsIn(await this.#send('POST', path, jsonBody(body)));
  }

  /**
   * Requests a file. Its bytes are the body of the answer.
   *
   * @throws {Error} there is no answer, or it is an error
   */
  download(path: string, body: unknown): Promise<IncomingMessage> {
    return this.#send('POST', path, jsonBody(body));
  }

  /**
   * Sends `file`, and yields the events as they arrive.
   *
   * @throws {Error} the operation failed, or the connection ended before it was done
   */
  async *upload(path: string, file: Readable, size: number): AsyncGenerator<OperationEvent> {
    yield* this.#eventsIn(await this.#send('POST', path, { content: file, size }));
  }

  async *#eventsIn(input: IncomingMessage): AsyncGenerator<OperationEvent> {
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

  /** Does not use fetch: it knows no Unix sockets, and gives no answer before the whole body is sent. */
  async #send(
    method: Method,
    path: string,
    body?: { content: Readable; size: number },
  ): Promise<IncomingMessage> {
    const [send, options] = await this.#target(path);
    const sent = send({
      ...options,
      method,
      headers: {
        'Content-Length': body?.size ?? 0,
        ...(this.#token === undefined ? {} : { Authorization: `Bearer ${this.#token}` }),
      },
    });
    const answered = Promise.withResolvers<IncomingMessage>();
    sent.once('response', answered.resolve);
    // Reports an error before the answer. Ignores one after it: the mirror does not want the rest of the body, or the
    // reader of the answer gets it.
    sent.on('error', answered.reject);
    if (body === undefined) sent.end();
    else void pipeline(body.content, sent).catch(answered.reject);
    const reply = await answered.promise.catch((error: unknown) => this.#unreachable(error));
    if (reply.statusCode === 200) return reply;
    const message = await text(reply).catch(() => '');
    sent.destroy();
    throw this.#refused(reply.statusCode, message);
  }

  async #target(path: string): Promise<[typeof httpRequest, RequestOptions & { ca?: string[] }]> {
    const [, socketPath] = /^unix:(.+)$/.exec(this.#server) ?? [];
    if (socketPath !== undefined)
      return [httpRequest, { socketPath, host: 'localhost', path: `/api${path}` }];
    const { protocol, hostname, port, pathname, search } = new URL(`${this.#server}/api${path}`);
    const host = hostname.replace(/^\[(.*)\]$/, '$1');
    const options = { host, path: pathname + search, ...(port === '' ? {} : { port }) };
    if (protocol === 'http:') return [httpRequest, options];
    if (this.#ca === undefined) return [httpsRequest, options];
    this.#authorities ??= authoritiesWith(this.#ca);
    return [httpsRequest, { ...options, ca: await this.#authorities }];
  }

  #unreachable(cause: unknown): never {
    const reason = cause instanceof Error ? cause.message : '';
    throw new Error(
      `no answer from ${this.#server}${reason && ` (${reason})`}: is Millpond running? Give its operations listener with --server`,
      { cause },
    );
  }

  #refused(status: number | undefined, body: string): Error {
    const problems = problemsIn(body);
    if (problems !== undefined) return new ConfigError('invalid', problems);
    const message = messageIn(body);
    if (message === undefined) {
      const what = `${this.#server} answered with status ${status}, which is not an answer of Millpond's operations listener`;
      return new Error(`${what}: check --server`);
    }
    const advice = ADVICE[status ?? 0];
    return new Error(advice === undefined ? message : `${message}: ${advice}`);
  }

  #cutOff(cause?: unknown): Error {
    return new Error(
      `the mirror at ${this.#server} closed the connection before it was done: see its log, then run the command again`,
      { cause },
    );
  }
}

function jsonBody(body: unknown): { content: Readable; size: number } | undefined {
  if (body === undefined) return undefined;
  const bytes = Buffer.from(JSON.stringify(body));
  return { content: Readable.from([bytes]), size: bytes.length };
}

/** The usual authorities, and those in `file`. @throws {Error} it cannot be read */
async function authoritiesWith(file: string): Promise<string[]> {
  try {
    return [...getCACertificates('default'), await readFile(file, 'utf8')];
  } catch (error) {
    throw unreadable(file, error);
  }
}

/** What the mirror found in its configuration file. */
function problemsIn(body: string): ConfigProblem[] | undefined {
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === 'object' && json !== null && 'problems' in json && Array.isArray(json.problems))
      return json.problems as ConfigProblem[];
  } catch {
    // Leaves it to the caller, as below.
  }
  return undefined;
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
