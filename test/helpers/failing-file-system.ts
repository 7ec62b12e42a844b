/** The real file system, failing on command: the only seam at which tests make a disk fail. */
import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { type FileSystem, nodeFileSystem } from '../../src/cache/store/file-system.ts';

type Operation = 'open' | 'read' | 'write' | 'sync' | 'rename' | 'mkdir';

export class FailingFileSystem {
  /** Which operations fail now, and with what. */
  readonly errnoByOperation = new Map<Operation, string>();
  /** Only writes that would take a file beyond this many bytes fail. */
  failWritesBeyond = 0;
  /** A write takes at most so many bytes, as on a disk that is nearly full: it is short, and no error. */
  mostWritten = Number.POSITIVE_INFINITY;
  /** One bit is wrong at this position of every file that is read, as on a disk that rots. */
  rotAt: number | undefined;
  /** What is written begins to be only when this resolves, as on a disk that is slow. */
  slowWrites: Promise<void> | undefined;
  /** Names of the files that were flushed to the disk, in order. */
  readonly flushed: string[] = [];
  /** Files that are open through this file system now. */
  openFiles = 0;
  readonly fileSystem: FileSystem = {
    ...nodeFileSystem,
    open: async (path, flags, mode) => {
      this.#check('open');
      const file = await nodeFileSystem.open(path, flags, mode);
      this.openFiles += 1;
      return this.#wrap(file, basename(String(path)));
    },
    rename: async (from, to) => {
      this.#check('rename');
      await nodeFileSystem.rename(from, to);
    },
    mkdir: (async (path: string, options: { recursive: true }) => {
      this.#check('mkdir');
      return nodeFileSystem.mkdir(path, options);
    }) as FileSystem['mkdir'],
  };

  fail(operation: Operation, errno: string): void {
    this.errnoByOperation.set(operation, errno);
  }

  heal(): void {
    this.errnoByOperation.clear();
  }

  #check(operation: Operation): void {
    const errno = this.errnoByOperation.get(operation);
    if (errno !== undefined)
      throw Object.assign(new Error(`${errno}: injected on ${operation}`), { code: errno });
  }

  #wrap(file: FileHandle, name: string): FileHandle {
    let closed = false;
    return new Proxy(file, {
      get: (target, property) => {
        const value: unknown = Reflect.get(target, property, target);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          if (property === 'read') return this.#read(target, args as [Buffer, number, number, number]);
          if (property === 'writeFile') this.#check('write');
          if (property === 'writev') return this.#writev(target, args as [Buffer[], number]);
          if (property === 'datasync') {
            this.#check('sync');
            this.flushed.push(name);
          }
          if ((property === 'close' || property === Symbol.asyncDispose) && !closed) {
            closed = true;
            this.openFiles -= 1;
          }
          return (value as (...args: unknown[]) => unknown).apply(target, args);
        };
      },
    });
  }

  async #read(file: FileHandle, args: [Buffer, number, number, number]) {
    this.#check('read');
    const result = await file.read(...args);
    const [buffer, offset, , position] = args;
    const at = this.rotAt === undefined ? -1 : this.rotAt - position;
    if (at >= 0 && at < result.bytesRead) buffer[offset + at] = (buffer[offset + at] ?? 0) ^ 1;
    return result;
  }

  async #writev(file: FileHandle, [buffers, position]: [Buffer[], number]) {
    const end = position + buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    if (end > this.failWritesBeyond) this.#check('write');
    await this.slowWrites;
    if (end - position <= this.mostWritten) return file.writev(buffers, position);
    const { bytesWritten } = await file.write(Buffer.concat(buffers), 0, this.mostWritten, position);
    return { bytesWritten, buffers };
  }
}
