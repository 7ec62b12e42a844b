/** Finds out who sends a request, for both listeners. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { AccessControl } from '../../access/control/access-control.ts';
import { AuthenticationError } from '../../access/errors.ts';
import { isLoopback } from '../../access/network/addresses.ts';
import type { Client } from '../../access/network/client-address.ts';
import type { Asker, CertificateIdentity } from '../../access/rules/identities.ts';
import type { TokenOrigin } from '../../access/tokens/origin.ts';

/** The identity of a verified client certificate of a connection, looked at again for each request. */
export type CertificateOf = (socket: Socket) => CertificateIdentity | undefined;

/** The part of a request's context that is needed to find out who sends it. */
export interface Caller {
  readonly client: Client;
  /** Aborts when the client leaves. */
  readonly signal: AbortSignal;
}

export interface Arrived {
  asker: Asker;
  /** What the credentials of the request stand for. Undefined: it has none. */
  origin: TokenOrigin | undefined;
}

export class Gate {
  readonly access: AccessControl;
  readonly #certificateOf: CertificateOf;
  readonly #isOfPage: (headers: IncomingHttpHeaders) => boolean;

  /** @param isOfPage whether a web page may stand behind a request: it has the network and certificate of its visitor */
  constructor(
    access: AccessControl,
    certificateOf: CertificateOf,
    isOfPage: (headers: IncomingHttpHeaders) => boolean,
  ) {
    this.access = access;
    this.#isOfPage = isOfPage;
    this.#certificateOf = certificateOf;
  }

  /**
   * Answers without waiting where the credentials were checked a moment ago, or there are none.
   *
   * @throws {AuthenticationError} credentials may not be sent without TLS; the promise: they are wrong
   * @throws {TooManyAttemptsError} {IssuerError}
   */
  arrivalOf(message: IncomingMessage, caller: Caller): Arrived | Promise<Arrived> {
    const { authorization } = message.headers;
    if (authorization === undefined) return this.#arrived(message, caller, undefined);
    this.requireConfidential(caller.client);
    const { authentication } = this.access;
    const recalled = authentication.recall(authorization);
    if (recalled !== undefined) return this.#arrived(message, caller, recalled);
    return authentication
      .ofRequest(authorization, clientOf(caller))
      .then((origin) => this.#arrived(message, caller, origin));
  }

  #arrived(message: IncomingMessage, caller: Caller, origin: TokenOrigin | undefined): Arrived {
    const asker = this.connectionOf(message, caller);
    if (origin === undefined || origin.kind === 'anonymous') return { asker, origin };
    return { asker: { ...asker, credentials: origin }, origin };
  }

  /** Who sends a request, by its connection alone. */
  connectionOf(message: IncomingMessage, { client }: Pick<Caller, 'client'>): Asker {
    if (this.#isOfPage(message.headers)) return {};
    // On a connection of a trusted proxy the certificate is the proxy's own, and all its clients would have it.
    const certificate = client.viaProxy ? undefined : this.#certificateOf(message.socket);
    return { certificate, address: client.address };
  }

  /** @throws {AuthenticationError} credentials that come this way can be read by others */
  requireConfidential({ secure, address, viaProxy }: Client): void {
    if (secure || this.access.insecure) return;
    // A connection without an address is a Unix socket. Behind a proxy, only its word counts.
    if (!viaProxy && (address === undefined || isLoopback(address))) return;
    throw new AuthenticationError(
      'passwords and tokens are taken only over TLS: use https, or set access.insecure in the configuration',
    );
  }
}

/** The caller as access control knows it. Its signal is made only when a password check must wait. */
export function clientOf(caller: Caller): { address: string | undefined; readonly signal: AbortSignal } {
  return {
    address: caller.client.address,
    get signal() {
      return caller.signal;
    },
  };
}
