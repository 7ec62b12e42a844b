/** An HTTP proxy on loopback: it resolves names by a table, tunnels, forwards, and remembers what came through. */
import { createServer, type IncomingMessage, type RequestListener, request, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { Certificate } from './certificates.ts';
import { cleanUp } from './cleanup.ts';

export interface TestProxyOptions {
  /** Ports on 127.0.0.1 by the `host:port` that clients name. */
  routes?: Record<string, number>;
  /** The proxy speaks TLS. */
  certificate?: Certificate;
  /** What `Proxy-Authorization` must be; asked for at each request. */
  authorization?: () => string;
  /** The answer to everything, instead of a way through. */
  status?: number;
  /** Nothing is ever answered. */
  silent?: boolean;
}

export class TestProxy {
  /** `CONNECT host:port` and `GET http://host/path`, in the order in which they came. */
  readonly requests: string[] = [];
  readonly headers: IncomingMessage['headers'][] = [];
  /** Subjects of the certificates that clients showed. */
  readonly clientCertificates: (string | undefined)[] = [];
  readonly #options: TestProxyOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(options: TestProxyOptions) {
    this.#options = options;
    const forward: RequestListener = (incoming, response) => {
      const refusal = this.#refusal(incoming);
      if (refusal === 'silence') return;
      if (refusal !== undefined) {
        response.writeHead(refusal).end('refused by the proxy');
        return;
      }
      const { host, pathname, search } = new URL(incoming.url ?? '');
      const port = this.#options.routes?.[host] ?? 0;
      const { method } = incoming;
      const { 'proxy-authorization': _kept, ...headers } = incoming.headers;
      const path = pathname + search;
      const outgoing = request({ host: '127.0.0.1', port, path, method, headers }, (reply) => {
        response.writeHead(reply.statusCode ?? 502, reply.headers);
        reply.pipe(response);
        reply.once('close', () => {
          if (!reply.complete) response.destroy();
        });
      });
      outgoing.on('error', () => response.destroy());
      incoming.pipe(outgoing);
    };
    this.#server =
      options.certificate === undefined
        ? createServer(forward)
        : createTlsServer({ ...options.certificate, requestCert: true, rejectUnauthorized: false }, forward);
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('secureConnection', (socket: TLSSocket) => {
      const { subject } = socket.getPeerCertificate();
      this.clientCertificates.push(subject?.CN === undefined ? undefined : String(subject.CN));
    });
    this.#server.on('connect', (incoming: IncomingMessage, socket: Socket) => this.#tunnel(incoming, socket));
  }

  static async start(t: Pick<TestContext, 'after'>, options: TestProxyOptions = {}): Promise<TestProxy> {
    const proxy = new TestProxy(options);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    cleanUp(t, () => proxy.close());
    return proxy;
  }

  /** `127.0.0.1:port`, or by the name that its certificate has. */
  get host(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `${this.#options.certificate === undefined ? '127.0.0.1' : 'localhost'}:${port}`;
  }

  get url(): string {
    return `${this.#options.certificate === undefined ? 'http' : 'https'}://${this.host}`;
  }

  /** Of clients. */
  get openConnections(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    await new Promise((resolve) => {
      this.#server.close(resolve);
      for (const socket of this.#sockets) socket.destroy();
    });
  }

  #tunnel(incoming: IncomingMessage, socket: Socket): void {
    socket.on('error', () => undefined);
    const refusal = this.#refusal(incoming);
    if (refusal === 'silence') {
      socket.on('end', () => socket.end()).resume(); // a server's socket does not end by itself
      return;
    }
    if (refusal !== undefined) {
      socket.end(`HTTP/1.1 ${refusal} No\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    const target = connect(this.#options.routes?.[incoming.url ?? ''] ?? 0, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      socket.pipe(target).pipe(socket);
    });
    target.on('error', () => socket.destroy());
    socket.on('close', () => target.destroy());
  }

  #refusal(incoming: IncomingMessage): number | 'silence' | undefined {
    this.requests.push(`${incoming.method ?? ''} ${incoming.url ?? ''}`);
    this.headers.push(incoming.headers);
    if (this.#options.silent === true) return 'silence';
    const wanted = this.#options.authorization?.();
    if (wanted !== undefined && incoming.headers['proxy-authorization'] !== wanted) return 407;
    return this.#options.status;
  }
}
