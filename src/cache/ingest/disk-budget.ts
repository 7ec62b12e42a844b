/**
 * Measures what the file system of the cache directory can still take. The configured size of the cache does not
 * matter.
 */
import { StorageError } from '../store/errors.ts';
import type { FileSystem } from '../store/file-system.ts';
import type { StorageFaults } from '../store/storage-faults.ts';

export interface DiskBudgetSettings {
  directory: string;
  /** Bytes to leave free for others. */
  keepFree: number;
}

export class DiskBudget {
  readonly #settings: DiskBudgetSettings;
  readonly #fileSystem: FileSystem;
  readonly #faults: StorageFaults;

  constructor(settings: DiskBudgetSettings, context: { fileSystem: FileSystem; faults: StorageFaults }) {
    this.#settings = settings;
    this.#fileSystem = context.fileSystem;
    this.#faults = context.faults;
  }

  /**
   * Bytes that may still be written. There is no limit if the disk does not answer: then writing fails when it is full.
   */
  async left(): Promise<number> {
    const { directory, keepFree } = this.#settings;
    try {
      const { bavail, bsize } = await this.#fileSystem.statfs(directory);
      return bavail * bsize - keepFree;
    } catch (error) {
      this.#faults.report(new StorageError('statfs', error));
      return Number.POSITIVE_INFINITY;
    }
  }
}
