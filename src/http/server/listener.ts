/** A listening HTTP or HTTPS server that can be drained. */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TlsOptions } from 'node:tls';

/** Longer than the idle timeouts of the usual load balancers (60 s), so that we never close under a request of theirs. */
const KEEP_ALIVE_MS = 75_000;
/** For the headers of a request, and for a TLS handshake. */
const HEADERS_TIMEOUT_MS = 20_000;
const REQUEST_TIMEOUT_MS = 60_000;
/** How often Node checks the two timeouts above. Its default of 30 s would make them half a minute longer. */
const TIMEOUT_CHECK_MS = 5_000;
/** How often a server that drains looks for connections whose last reply has ended. */
const DRAIN_CHECK_MS = 50;

export interface ListenerOptions {
  /** For the whole of a request, including its body; 0: no limit. Default: 60 s. */
  requestTimeoutMs?: number;
  /** Serves HTTPS with these options of `node:tls`. Absent: plain HTTP. */
  tls?: TlsOptions;
}

export class Listener {
  readonly #server: Server | TlsServer;
  /** All connections, including those that `node:http` does not know: in a TLS handshake, or after a CONNECT. */
  readonly #connections = new Set<Duplex>();
  #draining: Promise<void> | undefined;

  private constructor(server: Server | TlsServer) {
    this.#server = server;
    server.on('connection', (connection: Duplex) => {
      this.#connections.add(connection);
      connection.once('close', () => this.#connections.delete(connection));
    });
    server.on('connect', refuseConnect);
  }

  /**
   * Starts to listen.
   *
   * @param address port 0 takes any free port
   * @throws the system's error if the address cannot be bound, or Node's error for wrong TLS options
   */
  static async open(
    address: { host: string; port: number },
    handler: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
    { requestTimeoutMs = REQUEST_TIMEOUT_MS, tls }: ListenerOptions = {},
  ): Promise<Listener> {
    const options: ServerOptions = {
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      noDelay: true,
      // Makes no stream for a body that is not there: without this a hit costs 1.06 times the CPU.
      optimizeEmptyRequests: true,
    };
    const onRequest = (request: IncomingMessage, response: ServerResponse) => void handler(request, response);
    const server =
      tls === undefined
        ? createServer(options, onRequest)
        : createTlsServer({ handshakeTimeout: HEADERS_TIMEOUT_MS, ...tls, ...options }, onRequest);
    const listener = new Listener(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address.port, address.host, () => {
        server.off('error', reject);
        resolve();
      });
    });
    return listener;
  }

  /** `host:port` as bound. */
  get address(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
  }

  /** Accepts no more connections, lets running replies finish for `timeoutMs`, then cuts them. Idempotent. */
  drain(timeoutMs: number): Promise<void> {
    this.#draining ??= new Promise((resolve) => {
      const cut = setTimeout(() => {
        for (const connection of this.#connections) connection.destroy();
      }, timeoutMs);
      // Polled, not event-driven: a listener on every reply would slow down all of them for what happens once.
      const check = setInterval(() => this.#server.closeIdleConnections(), DRAIN_CHECK_MS);
      this.#server.close(() => {
        clearTimeout(cut);
        clearInterval(check);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
    return this.#draining;
  }
}

/**
 * Tells a client what is wrong that uses this server as a proxy. Without a listener for CONNECT, Node closes the
 * connection without a reply.
 *
 * @param connection `node:http` no longer knows it, so that we must close it
 */
function refuseConnect(_request: IncomingMessage, connection: Duplex): void {
  const message =
    'this is a registry mirror and not a proxy: set it as the mirror of a registry in the client, not as HTTPS_PROXY';
  const body = JSON.stringify({ errors: [{ code: 'UNSUPPORTED', message, detail: {} }] });
  const head = [
    'HTTP/1.1 405 Method Not Allowed',
    'Allow: GET, HEAD',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  connection.on('error', () => undefined); // the client may have left before the reply
  // Closed on our side too: a client that keeps its own side open would hold a descriptor for ever.
  connection.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => connection.destroy());
}
