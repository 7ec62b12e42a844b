/** Decides who a client is and whether it may pull. It is asked before the cache and before upstream. */
import type { IncomingMessage } from 'node:http';
import type { Identity } from '../../request-context.ts';
import type { ClientRequest } from './client-request.ts';
import type { PingRequest, PullRequest } from './routes.ts';

/** What an authorizer lets a client do. */
export interface Admission {
  identity: Identity;
  /** Only what is cached, and nothing from upstream. */
  cachedOnly: boolean;
  /** The place of the rule that allows it, from 0, for the log. */
  rule?: number;
}

export interface Authorizer {
  /**
   * @param request what the client asks for: its grammar is right and its registry is configured
   * @param message for its headers and its connection
   * @throws {RegistryError} `UNAUTHORIZED` with a `WWW-Authenticate` header, or `DENIED`
   */
  authorize(
    request: Readonly<PullRequest> | PingRequest,
    message: IncomingMessage,
    caller: ClientRequest,
  ): Admission | Promise<Admission>;
}
