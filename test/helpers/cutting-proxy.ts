/** Stands before an object store, and cuts the body of a reply on command. */
import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import type { TestContext } from 'node:test';
import { cleanUp } from './cleanup.ts';

export class CuttingProxy {
  readonly port: number;
  /** The headers of the requests with presigned URLs. */
  readonly presigned: IncomingHttpHeaders[] = [];
  #cutAbove: number | undefined;

  private constructor(port: number) {
    this.port = port;
  }

  /** @param target port of the store on this machine */
  static async start(t: TestContext, target: string): Promise<CuttingProxy> {
    const server = createServer((incoming, response) => {
      proxy.#pass(incoming, response, target).catch(() => response.destroy()); // one of the two has gone
    });
    server.listen(0, 'localhost');
    await once(server, 'listening');
    const proxy = new CuttingProxy((server.address() as AddressInfo).port);
    cleanUp(t, () => server.close().closeAllConnections());
    return proxy;
  }

  /** Cuts the next body of more than `bytes` that is asked for by a presigned URL, in its middle. */
  cutNextBody(bytes: number): void {
    this.#cutAbove = bytes;
  }

  async #pass(incoming: IncomingMessage, response: ServerResponse, port: string): Promise<void> {
    const { method, url = '/', headers } = incoming;
    const isPresigned = url.includes('X-Amz-Signature');
    if (isPresigned) this.presigned.push(headers);
    const outgoing = request({ host: '127.0.0.1', port, method, path: url, headers });
    const [[reply]] = await Promise.all([
      once(outgoing, 'response') as Promise<[IncomingMessage]>,
      pipeline(incoming, outgoing),
    ]);
    response.writeHead(reply.statusCode ?? 500, reply.headers);
    const length = Number(reply.headers['content-length'] ?? 0);
    if (!isPresigned || length <= (this.#cutAbove ?? Number.POSITIVE_INFINITY)) {
      await pipeline(reply, response);
      return;
    }
    this.#cutAbove = undefined;
    let left = Math.floor(length / 2);
    for await (const chunk of reply as AsyncIterable<Buffer>) {
      response.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) break;
    }
    response.write('', () => response.destroy());
  }
}
