import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { ContentReader } from '../../../src/cache/store/content-store.ts';
import { ClientGoneError, ContentSender } from '../../../src/http/server/content-sender.ts';
import { cleanUp } from '../../helpers/cleanup.ts';

const MIB = 1024 * 1024;

test('after a failed read, bytes on their way to one client are not overwritten with those of another', async (t) => {
  const sender = new ContentSender({ clientTimeoutMs: 60_000 });
  const failed = Promise.withResolvers<number>();
  const port = await listen(t, async (path, response) => {
    if (path === '/other') return await send(sender, response, sourceOf(2, 8 * MIB));
    let read = 0;
    const failing = sourceOf(1, 1024 * MIB, async (length) => {
      await turns(10);
      if ((response.socket?.writableLength ?? 0) > 0) throw new Error('the disk is gone');
      read += length;
    });
    await send(sender, response, failing).catch(() => failed.resolve(read)); // and the connection stays
  });

  const stuck = await request(t, port, '/failing');
  const sent = await failed.promise;
  const other = await request(t, port, '/other');
  assert.ok((await take(other, 8 * MIB)).every((byte) => byte === 2));
  assert.ok((await take(stuck, sent)).every((byte) => byte === 1));
});

const STALLED_MS = 100;
const NOT_FOR_EVER = { timeout: 5_000 };

test('a client that takes no byte for clientTimeout is cut', NOT_FOR_EVER, async (t) => {
  const sender = new ContentSender({ clientTimeoutMs: STALLED_MS });
  const ended = Promise.withResolvers<unknown>();
  const port = await listen(t, async (_path, response) => {
    await send(sender, response, sourceOf(1, 1024 * MIB)).then(ended.resolve, ended.resolve);
  });
  const reply = await request(t, port, '/'); // and no byte of its body is read
  assert.ok((await ended.promise) instanceof ClientGoneError);
  await assert.rejects(take(reply, 1024 * MIB), { code: 'ECONNRESET' });
});

for (const [then, takes] of [
  ['gets all of it', true],
  ['and takes none of it when it comes, is cut', false],
] as const) {
  test(`a client that waits for its content longer than clientTimeout ${then}`, NOT_FOR_EVER, async (t) => {
    const sender = new ContentSender({ clientTimeoutMs: STALLED_MS });
    const size = (takes ? 8 : 1024) * MIB;
    const ended = Promise.withResolvers<unknown>();
    const port = await listen(t, async (_path, response) => {
      const idle = once(response.socket ?? assert.fail(), 'timeout');
      const source = sourceOf(1, size, async () => {
        response.flushHeaders();
        await idle;
      });
      await send(sender, response, source).then(ended.resolve, ended.resolve);
    });
    const reply = await request(t, port, '/');
    if (takes) assert.equal((await take(reply, size)).length, size);
    assert.equal((await ended.promise) instanceof ClientGoneError, !takes);
  });
}

function sourceOf(byte: number, size: number, onRead?: (length: number) => Promise<void>): ContentReader {
  return {
    size,
    read: async (target, position, end) => {
      const length = Math.min(target.length, end - position);
      await onRead?.(length);
      target.fill(byte, 0, length);
      return length;
    },
    close: async () => undefined,
  };
}

/** Of the event loop: what the connection would take, it has taken. */
async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) await setImmediate();
}

function send(sender: ContentSender, response: ServerResponse, content: ContentReader): Promise<void> {
  response.setHeader('content-length', content.size);
  return sender.send(response, content, { start: 0, end: content.size }, () => undefined);
}

async function listen(
  t: TestContext,
  answer: (path: string | undefined, response: ServerResponse) => Promise<void>,
): Promise<number> {
  const server = createServer((asked, response) => {
    answer(asked.url, response).catch((error: Error) => response.destroy(error));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp(t, () => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** The reply, of which no byte is taken yet. */
async function request(t: TestContext, port: number, path: string): Promise<IncomingMessage> {
  const sent = get({ host: '127.0.0.1', port, path, agent: false });
  cleanUp(t, () => sent.destroy());
  const [reply] = (await once(sent, 'response')) as [IncomingMessage];
  return reply;
}

async function take(reply: IncomingMessage, size: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of reply) {
    chunks.push(chunk as Buffer);
    length += (chunk as Buffer).length;
    if (length >= size) break;
  }
  return Buffer.concat(chunks);
}
