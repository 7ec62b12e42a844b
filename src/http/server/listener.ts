/** A listening HTTP server that can be drained. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

// Above the idle timeouts of the usual load balancers (60 s), so that it is never we who close under a request.
const KEEP_ALIVE_MS = 75_000;
const HEADERS_TIMEOUT_MS = 20_000;
const REQUEST_TIMEOUT_MS = 60_000;
/** How often the two timeouts above are looked at; Node's own 30 s would make them half a minute longer. */
const TIMEOUT_CHECK_MS = 5_000;
/** How often a server that drains looks for connections that have given their last reply. */
const DRAIN_CHECK_MS = 50;

export class Listener {
  readonly #server: Server;
  #draining: Promise<void> | undefined;

  private constructor(server: Server) {
    this.#server = server;
  }

  /**
   * @param address port 0 takes any free one
   * @param options.requestTimeoutMs for the whole of a request, its body too; 0: none
   * @throws the system's error when the address cannot be had
   */
  static async open(
    address: { host: string; port: number },
    handler: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
    { requestTimeoutMs = REQUEST_TIMEOUT_MS }: { requestTimeoutMs?: number } = {},
  ): Promise<Listener> {
    const server = createServer(
      {
        keepAliveTimeout: KEEP_ALIVE_MS,
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: requestTimeoutMs,
        connectionsCheckingInterval: TIMEOUT_CHECK_MS,
        noDelay: true,
        // No stream for a body that is not there: 1 µs of the 30 of a warm manifest (Node 24.12; older ones ignore it).
        optimizeEmptyRequests: true,
      },
      (request, response) => void handler(request, response),
    );
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

  /** Takes no more connections, lets running replies finish for `timeoutMs`, then cuts them. Idempotent. */
  drain(timeoutMs: number): Promise<void> {
    this.#draining ??= new Promise((resolve) => {
      const cut = setTimeout(() => this.#server.closeAllConnections(), timeoutMs);
      // Looked for, not told of: a listener on every reply would cost each one for what happens once.
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
