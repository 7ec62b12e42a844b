/** Keeps the last bytes of the front in memory, so that a follower that keeps up need not wait for the disk. */

export class RecentBytes {
  #start = 0;
  #chunks: readonly Buffer[] = [];

  /** Keeps `chunks`, which begin at `start`, and frees those before. */
  replace(chunks: readonly Buffer[], start: number): void {
    free(this.#chunks);
    this.#chunks = chunks;
    this.#start = start;
  }

  /**
   * Copies the bytes from `position` to `end` that are in memory.
   *
   * @returns how many; 0 if they must be read from the file
   */
  copy(target: Buffer, position: number, end: number): number {
    let copied = 0;
    let at = this.#start;
    for (const chunk of this.#chunks) {
      const from = position + copied - at;
      at += chunk.length;
      if (from < 0 || from >= chunk.length) continue;
      const length = Math.min(chunk.length - from, end - position - copied, target.length - copied);
      chunk.copy(target, copied, from, from + length);
      copied += length;
    }
    return copied;
  }

  clear(): void {
    this.replace([], 0);
  }
}

/**
 * Frees the memory of chunks at once. Left to the garbage collector, they pile up outside its heap faster than it looks
 * for them, and then it marks the whole heap every 20 MiB: a third of the CPU of a cold blob (bench/README.md). A chunk
 * that shares its memory with others is left to the collector.
 */
export function free(chunks: readonly Buffer[]): void {
  for (const { buffer, length } of chunks) {
    if (buffer instanceof ArrayBuffer && length === buffer.byteLength) buffer.transfer(0);
  }
}
