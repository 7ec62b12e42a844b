/** A TCP proxy between two of ours on loopback. It delays, cuts and swallows on command, and counts what comes through. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { cleanUp } from './cleanup.ts';

/** An HTTP request as it came through. */
export interface SeenHead {
  method: string;
  path: string;
  /** By their names in lower case. */
  headers: Map<string, string>;
  /** Bytes that came back on this connection from this request to the next. */
  bytesBack: number;
}

export class TcpProxy {
  readonly heads: SeenHead[] = [];
  /** From now on nothing comes through, in either direction, and no connection is closed. */
  swallows = false;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param port where all goes to, on 127.0.0.1 */
  static async start(t: Pick<TestContext, 'after'>, port: number): Promise<TcpProxy> {
    const server = createServer((client) => proxy.#join(client, connect(port, '127.0.0.1')));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const proxy = new TcpProxy(server);
    cleanUp(t, () => {
      proxy.cut();
      server.close();
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  count(method: string, part = ''): number {
    return this.heads.filter((head) => head.method === method && head.path.includes(part)).length;
  }

  /** Ends all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(client: Socket, server: Socket): void {
    let last: SeenHead | undefined;
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('error', () => undefined);
      from.once('close', () => {
        this.#sockets.delete(from);
        if (!this.swallows) to.destroy();
      });
      from.on('data', (bytes) => {
        if (this.swallows) return;
        if (from === client) last = this.#head(bytes) ?? last;
        else if (last !== undefined) last.bytesBack += bytes.length;
        if (to.destroyed || to.write(bytes)) return;
        from.pause();
        to.once('drain', () => from.resume());
      });
    }
  }

  /** A request begins a piece of its own: the client has waited for the answer to the one before. */
  #head(bytes: Buffer): SeenHead | undefined {
    const text = bytes.toString('latin1');
    const [, method, path] = /^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP\/1\.1\r\n/.exec(text) ?? [];
    if (method === undefined || path === undefined) return undefined;
    const lines = text.slice(0, text.indexOf('\r\n\r\n')).matchAll(/^([\w-]+): (.*?)\r?$/gm);
    const headers = new Map([...lines].map(([, name = '', value = '']) => [name.toLowerCase(), value]));
    const head: SeenHead = { method, path, headers, bytesBack: 0 };
    this.heads.push(head);
    return head;
  }
}
