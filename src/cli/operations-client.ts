/** How commands talk to a running mirror: over its operations API. */
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import type { Command } from 'commander';

const DEFAULT_SERVER = 'http://127.0.0.1:5001';

/** What {@link withServerOption} leaves for a command's action. */
export interface ServerOption {
  server: string;
}

export function withServerOption(command: Command): Command {
  return command.option('--server <url>', 'operations listener of the mirror', DEFAULT_SERVER);
}

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
  async *events(path: string): AsyncGenerator<Record<string, unknown> & { event: string }> {
    const { body } = await this.#send('POST', path);
    if (body === null) return;
    const lines = createInterface({ input: Readable.fromWeb(body), crlfDelay: Number.POSITIVE_INFINITY });
    for await (const line of lines) {
      const event = JSON.parse(line) as Record<string, unknown> & { event: string };
      if (event.event === 'error') throw new Error(String(event['message']));
      yield event;
      if (event.event === 'done') return;
    }
    throw new Error(`the mirror at ${this.#server} broke off before it was done`);
  }

  async #send(method: string, path: string): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(`${this.#server}/api${path}`, { method });
    } catch (error) {
      const reason = error instanceof Error && error.cause instanceof Error ? error.cause.message : '';
      throw new Error(
        `no Millpond answers at ${this.#server}${reason && ` (${reason})`}: is it running? --server names its operations listener`,
        { cause: error },
      );
    }
    if (response.ok) return response;
    const body: unknown = await response.json().catch(() => undefined);
    const message = typeof body === 'object' && body !== null && 'error' in body ? body.error : undefined;
    throw new Error(
      typeof message === 'string'
        ? message
        : `${this.#server} answered ${response.status}: is it a Millpond?`,
    );
  }
}
