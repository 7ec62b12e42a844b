/**
 * Sends content to one client, at the pace of that client. Uses two buffers in turn: one is read into while the other
 * is written. Many slow clients cost others speed, because they hold the large buffers, but never a place.
 */
import type { ServerResponse } from 'node:http';
import type { ContentReader } from '../../cache/store/content-store.ts';
import type { ByteRange } from './range.ts';
import { SendBuffers } from './send-buffers.ts';

/** The client left, or took no byte for too long. This is not our fault, and there is nobody to answer. */
export class ClientGoneError extends Error {
  override readonly name = 'ClientGoneError';
}

export class ContentSender {
  readonly #clientTimeoutMs: number;
  readonly #buffers = new SendBuffers();

  /** @param options.clientTimeoutMs the connection of a client that takes no byte for this long is cut */
  constructor(options: { clientTimeoutMs: number }) {
    this.#clientTimeoutMs = options.clientTimeoutMs;
  }

  /**
   * Writes `range` of `content` and ends the reply, whose headers must be set.
   *
   * @param onBytes is called for every piece that the connection of the client has taken
   * @throws {ClientGoneError}
   * @throws what `content.read` throws: the reply is incomplete, and the connection must be cut
   */
  async send(
    response: ServerResponse,
    content: ContentReader,
    range: ByteRange,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    // Ends a read that waits for upstream: such a read does not notice by itself that the client has left.
    const onClose = () => void content.close().catch(() => undefined);
    response.once('close', onClose);
    this.#cutIfStalled(response);
    let buffer = this.#buffers.take(range.end - range.start);
    let other: Buffer | undefined;
    let written: Promise<void> = Promise.resolve(); // the content of `other`
    try {
      let position = range.start;
      while (position < range.end) {
        const length = await readOrGone(response, content, buffer, position, range.end);
        await written;
        written = write(response, buffer.subarray(0, length));
        written.catch(() => undefined); // awaited in the next turn, which may meet another error first
        written = written.then(() => onBytes(length));
        written.catch(() => undefined);
        position += length;
        if (position < range.end)
          [buffer, other] = [other ?? this.#buffers.take(range.end - position), buffer];
      }
      await written;
      response.end();
    } finally {
      response.off('close', onClose);
      // After a failed read, the other buffer is still on its way to this client. It must not be used for another client
      // before the connection is cut.
      const used = other === undefined ? [buffer] : [buffer, other];
      const giveBack = () => used.forEach((each) => this.#buffers.give(each));
      written.then(giveBack, giveBack);
    }
  }

  /**
   * Node reports a connection that was idle for this long, whoever caused it. If we had nothing to send, because upstream
   * is slow, the client is not at fault. The next write starts the timer again.
   */
  #cutIfStalled(response: ServerResponse): void {
    response.setTimeout(this.#clientTimeoutMs, () => {
      const { socket } = response;
      if (socket !== null && socket.writableLength > 0) socket.destroy();
    });
  }
}

async function readOrGone(
  response: ServerResponse,
  content: ContentReader,
  buffer: Buffer,
  position: number,
  end: number,
): Promise<number> {
  try {
    const length = await content.read(buffer, position, end);
    if (length > 0) return length;
    throw new Error('the content ended early');
  } catch (error) {
    if (response.destroyed) throw new ClientGoneError('the client left', { cause: error });
    throw error;
  }
}

function write(response: ServerResponse, chunk: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = () => reject(new ClientGoneError('the client left'));
    if (response.destroyed) return onClose();
    response.once('close', onClose);
    response.write(chunk, (error) => {
      response.off('close', onClose);
      if (error) reject(new ClientGoneError('the client left', { cause: error }));
      else resolve();
    });
  });
}
