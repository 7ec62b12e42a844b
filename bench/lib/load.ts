/**
 * A program: clients that download. Takes a {@link LoadJob} as its argument, prints a {@link LoadResult}.
 *
 * Raw sockets that read into one buffer: a client that costs little CPU, on a machine where it shares the cores with
 * the server it measures.
 */
import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface LoadJob {
  port: number;
  /** Whatever certificate the server shows is good. */
  tls?: boolean;
  path: string;
  /** At the same time. */
  clients: number;
  /** Downloads of each client, one after the other. */
  repeat: number;
  /** Compare the digest at the end of `path`. */
  verify: boolean;
  /** Bytes a second that each client reads at most. */
  readRate?: number;
  /** Clients that are not done by then leave; that is no failure. */
  leaveAfterMs?: number;
}

export interface LoadResult {
  wallMs: number;
  bytes: number;
  /** From the connection's start to the first byte of the body; one a download. */
  firstByteMs: number[];
  /** The same moments, in ms since the epoch. */
  firstByteAt: number[];
  failures: string[];
}

const BUFFER_BYTES = 256 * 1024;
const SLOW_TURN_MS = 100;

const job = JSON.parse(process.argv[2] ?? '') as LoadJob;
const result: LoadResult = { wallMs: 0, bytes: 0, firstByteMs: [], firstByteAt: [], failures: [] };
const startedAt = performance.now();
await Promise.all(
  Array.from({ length: job.clients }, async () => {
    const buffer = Buffer.allocUnsafeSlow(job.readRate === undefined ? BUFFER_BYTES : BUFFER_BYTES / 16);
    for (let n = 0; n < job.repeat; n += 1) {
      try {
        await download(buffer);
      } catch (error) {
        result.failures.push(String(error));
      }
    }
  }),
);
result.wallMs = performance.now() - startedAt;
process.stdout.write(JSON.stringify(result));

function download(buffer: Buffer): Promise<void> {
  const { port, path, verify, readRate, leaveAfterMs } = job;
  return new Promise((resolve, reject) => {
    const hash = verify ? createHash('sha256') : undefined;
    const beganAt = performance.now();
    let header = '';
    let expected: number | undefined;
    let received = 0;
    let turnBytes = 0;

    const take = (bytes: Buffer) => {
      let body = bytes;
      if (expected === undefined) {
        const before = header.length;
        header += bytes.toString('latin1');
        const end = header.indexOf('\r\n\r\n');
        if (end === -1) return;
        const length = /\r\ncontent-length: *(\d+)/i.exec(header.slice(0, end));
        if (!header.startsWith('HTTP/1.1 200 ') || length === null) {
          socket.destroy(new Error(header.slice(0, 500)));
          return;
        }
        expected = Number(length[1]);
        body = bytes.subarray(end + 4 - before);
      }
      if (body.length === 0) return;
      if (received === 0) {
        const now = performance.now();
        result.firstByteMs.push(now - beganAt);
        result.firstByteAt.push(performance.timeOrigin + now);
      }
      received += body.length;
      result.bytes += body.length;
      hash?.update(body);
      if (received === expected) socket.destroy();
    };
    const target = { host: '127.0.0.1', port };
    const socket: Socket = job.tls
      ? connectTls({ ...target, rejectUnauthorized: false }).on('data', take)
      : connect({
          ...target,
          onread: {
            buffer,
            callback: (length) => {
              take(buffer.subarray(0, length));
              turnBytes += length;
              return readRate === undefined || turnBytes < (readRate * SLOW_TURN_MS) / 1000;
            },
          },
        });
    let left = false;
    const timers: NodeJS.Timeout[] = [];
    if (readRate !== undefined) {
      timers.push(
        setInterval(() => {
          turnBytes = 0;
          socket.resume();
        }, SLOW_TURN_MS),
      );
    }
    if (leaveAfterMs !== undefined) {
      timers.push(
        setTimeout(() => {
          left = true;
          socket.destroy();
        }, leaveAfterMs),
      );
    }
    socket.once('error', reject);
    socket.once('close', () => {
      for (const timer of timers) clearInterval(timer);
      if (!left && received !== expected) reject(new Error(`${received} of ${expected} bytes came`));
      else if (hash !== undefined && !path.endsWith(`sha256:${hash.digest('hex')}`)) {
        reject(new Error('the bytes are wrong'));
      } else resolve();
    });
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
    );
  });
}
