/** The request of a client, as the mirror knows it. */
import type { ServerResponse } from 'node:http';
import { ANONYMOUS, type RequestContext } from '../../request-context.ts';

export class ClientRequest implements RequestContext {
  readonly id: string;
  readonly identity = ANONYMOUS;
  readonly #response: ServerResponse;
  #abort: AbortController | undefined;

  constructor(id: string, response: ServerResponse) {
    this.id = id;
    this.#response = response;
  }

  /** Aborts when the client leaves. Made when it is first asked for: a hit needs none, and it costs a microsecond. */
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
