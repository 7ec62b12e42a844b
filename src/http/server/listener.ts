/** A listening HTTP or HTTPS server that can be drained. */
import { chmod, lstat, rm } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SecureContextOptions, TLSSocket, TlsOptions } from 'node:tls';
import { type ListenAddress, listenError } from './listen-address.ts';

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
  /** The key of the address in the configuration, for errors. */
  key?: string;
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
    server.on('tlsClientError', refusePlainHttp);
  }

  /**
   * Starts to listen.
   *
   * @param address port 0 takes any free port; a socket that a server has left behind is replaced
   * @throws {ListenError} the address cannot be had
   * @throws {Error} the TLS options are wrong
   */
  static async open(
    address: ListenAddress,
    handler: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
    { requestTimeoutMs = REQUEST_TIMEOUT_MS, tls, key = 'listen' }: ListenerOptions = {},
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
    if ('socket' in address) await removeLeftover(address.socket);
    await new Promise<void>((resolve, reject) => {
      const refuse = (error: Error) => reject(listenError(error, key, address));
      server.once('error', refuse);
      const listening = () => {
        server.off('error', refuse);
        resolve();
      };
      if ('socket' in address) server.listen(address.socket, listening);
      else server.listen(address.port, address.host, listening);
    });
    // Nobody can connect in between with more rights than the umask leaves: the folder decides who gets this far.
    if ('socket' in address) await chmod(address.socket, address.mode);
    return listener;
  }

  /** Uses another certificate for connections that are opened from now on. Only for a TLS listener. */
  setSecureContext(context: SecureContextOptions): void {
    if ('setSecureContext' in this.#server) this.#server.setSecureContext(context);
  }

  /** `host:port` as bound, or the path of the socket. */
  get address(): string {
    const bound = this.#server.address();
    if (typeof bound === 'string') return `unix:${bound}`;
    const { address, port, family } = bound as AddressInfo;
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

/** Removes a socket that nobody listens on any more. A file that is not a socket stays: then listening fails. */
async function removeLeftover(path: string): Promise<void> {
  try {
    if ((await lstat(path)).isSocket() && !(await answers(path))) await rm(path);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('error', () => resolve(false));
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
  });
}

/** Tells a client that speaks plain HTTP to a TLS listener. Node closes the connection without a reply. */
function refusePlainHttp(error: Error & { code?: string }, socket: TLSSocket): void {
  if (error.code !== 'ERR_SSL_HTTP_REQUEST') return;
  // The TLS socket is destroyed already. What it was made of is still open, and has no public name.
  const connection = (socket as TLSSocket & { _parent?: Duplex })._parent;
  if (connection?.writable !== true) return;
  const message =
    'this address speaks HTTPS: write https:// in the client, or remove insecure from its settings';
  sendLast(connection, '400 Bad Request', message);
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
  sendLast(connection, '405 Method Not Allowed', message, 'Allow: GET, HEAD');
}

/** Writes an error reply on a connection that `node:http` does not know, and closes it. */
function sendLast(connection: Duplex, status: string, message: string, ...headers: string[]): void {
  const body = JSON.stringify({ errors: [{ code: 'UNSUPPORTED', message, detail: {} }] });
  const head = [
    `HTTP/1.1 ${status}`,
    ...headers,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  connection.on('error', () => undefined); // the client may have left before the reply
  // Closed on our side too: a client that keeps its own side open would hold a descriptor for ever.
  connection.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => connection.destroy());
}
