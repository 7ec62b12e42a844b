/**
 * Images that are never evicted: those that the configuration names, and those that an operator has pinned. The latter
 * are in a file of the cache directory, apart from the index, so that they outlast it.
 */
import { join } from 'node:path';
import * as z from 'zod';
import type { Digest } from '../../oci/digest.ts';
import { imagePattern } from '../../oci/reference.ts';
import type { IndexStore } from '../index/index-store.ts';
import { errnoOf, StorageError } from '../store/errors.ts';
import type { FileSystem } from '../store/file-system.ts';
import type { Catalog } from './catalog.ts';

/** Lies in the cache directory. */
const FILE_NAME = 'pins.json';
const FILE = z.array(z.string());

export interface Pin {
  /** Of names such as `docker.io/library/alpine:3.20`; `*` matches any text. */
  pattern: string;
  /** Who pinned it: the configuration, or an operator of the running mirror. */
  source: 'configuration' | 'operator';
}

export interface PinsContext {
  catalog: Catalog;
  index: IndexStore;
  fileSystem: FileSystem;
}

/** What is pinned would be larger than the cache. */
export class PinsTooLargeError extends Error {
  override readonly name = 'PinsTooLargeError';
  /** Bytes that all pinned images would take on the disk. */
  readonly bytes: number;
  readonly maxBytes: number;

  constructor(bytes: number, maxBytes: number) {
    super(`all that is pinned would take ${bytes} bytes, and cache.maxSize is ${maxBytes}`);
    this.bytes = bytes;
    this.maxBytes = maxBytes;
  }
}

export class Pins {
  readonly #path: string;
  readonly #configured: readonly string[];
  readonly #context: PinsContext;
  #own: readonly string[];
  #compiled: readonly RegExp[] = [];
  /** Runs one change after another. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(
    path: string,
    configured: readonly string[],
    own: readonly string[],
    context: PinsContext,
  ) {
    this.#path = path;
    this.#configured = configured;
    this.#own = own;
    this.#context = context;
    this.#compile();
  }

  /** @param configured the patterns of the configuration @throws {StorageError} the file cannot be read */
  static async open(directory: string, configured: readonly string[], context: PinsContext): Promise<Pins> {
    const path = join(directory, FILE_NAME);
    try {
      const own = FILE.parse(JSON.parse(await context.fileSystem.readFile(path, 'utf8')));
      return new Pins(path, configured, own, context);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return new Pins(path, configured, [], context);
      throw new StorageError('read', error, `: mend or remove ${path}, which lists what is pinned`);
    }
  }

  get all(): Pin[] {
    return [
      ...this.#configured.map((pattern): Pin => ({ pattern, source: 'configuration' })),
      ...this.#own.map((pattern): Pin => ({ pattern, source: 'operator' })),
    ];
  }

  has(image: string): boolean {
    return this.#compiled.some((pattern) => pattern.test(image));
  }

  /** The content of the pinned images. Looked up each time, because tags move. @throws {StorageError} */
  content(): Promise<ReadonlySet<Digest>> {
    return this.#contentOf(this.#compiled);
  }

  /**
   * Pins what matches `pattern`, for good. Idempotent.
   *
   * @param maxBytes of the cache
   * @throws {PinsTooLargeError} nothing has changed @throws {StorageError}
   */
  add(pattern: string, maxBytes: number): Promise<void> {
    return this.#change(async () => {
      if (this.#own.includes(pattern)) return;
      const bytes = await this.#sizeOf([...this.#compiled, imagePattern(pattern)]);
      if (bytes > maxBytes) throw new PinsTooLargeError(bytes, maxBytes);
      await this.#keep([...this.#own, pattern]);
    });
  }

  /** @returns whether an operator had pinned `pattern` @throws {StorageError} */
  remove(pattern: string): Promise<boolean> {
    return this.#change(async () => {
      if (!this.#own.includes(pattern)) return false;
      await this.#keep(this.#own.filter((one) => one !== pattern));
      return true;
    });
  }

  #change<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#changing.then(step);
    this.#changing = done.catch(() => undefined); // the caller is told
    return done;
  }

  /** Takes effect by rename, so that a crash leaves the old file or the new one. */
  async #keep(own: readonly string[]): Promise<void> {
    const { fileSystem } = this.#context;
    const next = `${this.#path}.new`;
    try {
      await fileSystem.writeFile(next, `${JSON.stringify(own, undefined, 2)}\n`, {
        mode: 0o600,
        flush: true,
      });
      await fileSystem.rename(next, this.#path);
    } catch (error) {
      throw new StorageError('write', error);
    }
    this.#own = own;
    this.#compile();
  }

  #compile(): void {
    this.#compiled = [...this.#configured, ...this.#own].map(imagePattern);
  }

  async #sizeOf(patterns: readonly RegExp[]): Promise<number> {
    let bytes = 0;
    for (const digest of await this.#contentOf(patterns))
      bytes += (await this.#context.catalog.get(digest))?.allocated ?? 0;
    return bytes;
  }

  async #contentOf(patterns: readonly RegExp[]): Promise<ReadonlySet<Digest>> {
    const { catalog, index } = this.#context;
    const content = new Set<Digest>();
    if (patterns.length === 0) return content;
    for await (const [{ upstream, repository, tag }, { digest }] of index.tags()) {
      const name = `${upstream}/${repository}:${tag}`;
      if (!patterns.some((pattern) => pattern.test(name))) continue;
      for (const needed of await catalog.closure(digest)) content.add(needed);
    }
    return content;
  }
}
