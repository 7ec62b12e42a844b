/** Sends requests to a registry with the `Authorization` that it demands. */
import type { Repository } from '../../oci/reference.ts';
import type { RequestContext } from '../../request-context.ts';
import { toUpstreamError } from '../errors.ts';
import {
  discard,
  type Reply,
  Transport,
  type TransportContext,
  type TransportRequest,
  type TransportSettings,
} from '../network/transport.ts';
import { type TokenSettings, Tokens } from './tokens.ts';

export interface AuthenticatedTransportSettings extends TransportSettings, TokenSettings {}

export interface AuthenticatedRequest extends TransportRequest {
  /** Whose content is asked for. */
  repository: Repository;
  /** Do not renew the token on a 401: the caller then sends another request, which renews it if necessary. */
  keepToken?: boolean;
}

export class AuthenticatedTransport {
  readonly #name: string;
  readonly #transport: Transport;
  readonly #tokens: Tokens;

  /** @throws {Error} the CA or the client certificate cannot be used */
  constructor(settings: AuthenticatedTransportSettings, context: TransportContext) {
    this.#name = settings.name;
    this.#transport = new Transport(settings, context);
    this.#tokens = new Tokens(settings, this.#transport, {
      clock: context.clock,
      onRefused: () => context.metrics.upstreamCredentialsRefused.inc({ upstream: settings.name }),
    });
  }

  /**
   * Sends a request. Answers a 401 of the registry, and a 401 of a host that a redirect led to, once each: with a token
   * and one more request.
   *
   * @returns the last reply, whatever its status
   * @throws {UpstreamError} no reply, or no token
   */
  async send({ repository, keepToken = false, ...request }: AuthenticatedRequest): Promise<Reply> {
    const { context, url, headers } = request;
    const sendWith = (to: URL, authorization: string | undefined) =>
      this.#transport.send({
        ...request,
        url: to,
        headers: authorization === undefined ? headers : { ...headers, Authorization: authorization },
      });
    const known = await this.#unlessAborted(this.#tokens.known(context, repository), context);
    let reply = await sendWith(url, known);
    if (reply.status === 401 && reply.url.origin === url.origin && !(keepToken && known !== undefined)) {
      const answer = this.#tokens.answer(context, reply, repository, known);
      const authorization = await this.#discardIfAnswered(reply, answer, context);
      if (authorization === undefined) return reply;
      reply = await sendWith(url, authorization);
    }
    if (reply.status === 401 && reply.url.origin !== url.origin) {
      // registry.k8s.io redirects to registries that demand a token of their own. They must not see ours.
      const answer = this.#tokens.anonymous(context, reply, repository);
      const authorization = await this.#discardIfAnswered(reply, answer, context);
      if (authorization === undefined) return reply;
      reply = await sendWith(reply.url, authorization);
    }
    return reply;
  }

  close(): Promise<void> {
    return this.#transport.close();
  }

  /** Discards `reply` unless it is the final one. An error discards it, too, or its connection would be lost. */
  async #discardIfAnswered(
    reply: Reply,
    answer: Promise<string | undefined>,
    context: RequestContext,
  ): Promise<string | undefined> {
    try {
      const authorization = await this.#unlessAborted(answer, context);
      if (authorization !== undefined) await discard(reply);
      return authorization;
    } catch (error) {
      await discard(reply);
      throw error;
    }
  }

  /** Stops waiting when the request is aborted. The fetch of the token goes on, because others may wait for it. */
  async #unlessAborted<T>(promise: Promise<T>, { signal }: RequestContext): Promise<T> {
    if (signal === undefined) return promise;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const abort = () => reject(toUpstreamError(signal.reason, this.#name));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    try {
      return await Promise.race([promise, aborted]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }
}
