/** Decides who a client is and whether it may pull. It is asked before the cache and before upstream. */
import type { IncomingMessage } from 'node:http';
import type { Identity } from '../../request-context.ts';
import type { PingRequest, PullRequest } from './routes.ts';

export interface Authorizer {
  /**
   * @param request what the client asks for: its grammar is right and its registry is configured
   * @param message for its headers and its connection
   * @returns who asks, for the context of the request
   * @throws {RegistryError} `UNAUTHORIZED` with a `WWW-Authenticate` header, or `DENIED`
   */
  authorize(request: Readonly<PullRequest> | PingRequest, message: IncomingMessage): Promise<Identity>;
}
