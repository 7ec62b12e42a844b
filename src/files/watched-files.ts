/**
 * Files that are read again when they change: passwords, tokens, a certificate and its key.
 *
 * Polled, not event-driven: events of a file system miss symlinks that change (Kubernetes) and network disks. There is
 * no timer either. A request for the content starts a look at the files, at most one a second, and does not wait for it.
 */
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import type { Logger } from '../telemetry/log.ts';
import { FileError } from './errors.ts';
import { exposureWarning } from './exposed-secrets.ts';

const LOOK_AGAIN_MS = 1_000;
/** After a quiet time the content may be hours old, so the next request waits. A change must count within 5 s. */
const OLDEST_MS = 3_000;
const COMPLAIN_AGAIN_MS = 60_000;

export interface WatchedFilesSettings<T> {
  /** Files that belong together: a change of one reads all of them. */
  paths: readonly string[];
  /** Those of `paths` that others must not read. A file that every user can read is used, with a warning in the log. */
  secrets?: readonly string[];
  /** @param contents in the order of `paths` @throws {Error} they cannot be used; the message quotes no content */
  parse: (contents: readonly Buffer[]) => T | Promise<T>;
}

export interface WatchedFilesContext {
  clock: Clock;
  logger: Logger;
}

export class WatchedFiles<T> {
  readonly #settings: WatchedFilesSettings<T>;
  readonly #context: WatchedFilesContext;
  #content: T;
  #version: string;
  /** Two quick changes may leave the same version behind, so a new version is read at two looks. */
  #readTwice = false;
  /** When the last complete look began. */
  #lookedAt: number;
  #look: Promise<void> | undefined;
  #complainedAt = Number.NEGATIVE_INFINITY;
  #areUsable = true;

  private constructor(
    settings: WatchedFilesSettings<T>,
    context: WatchedFilesContext,
    first: { version: string; content: T; lookedAt: number },
  ) {
    this.#settings = settings;
    this.#context = context;
    this.#version = first.version;
    this.#content = first.content;
    this.#lookedAt = first.lookedAt;
  }

  /** @throws {FileError} a file cannot be read @throws what `parse` throws */
  static async open<T>(
    settings: WatchedFilesSettings<T>,
    context: WatchedFilesContext,
  ): Promise<WatchedFiles<T>> {
    const lookedAt = context.clock.now();
    const version = await versionOf(settings.paths);
    const content = await settings.parse(await readAll(settings.paths));
    for (const file of settings.secrets ?? []) await warnIfExposed(file, context.logger);
    return new WatchedFiles(settings, context, { version, content, lookedAt });
  }

  /** The last content that could be used. A change that can be used is in it after 5 s at most. */
  async current(): Promise<T> {
    const now = this.#context.clock.now();
    const age = now - this.#lookedAt;
    const turnedBack = age < 0; // the clock may jump
    if (age < LOOK_AGAIN_MS && !turnedBack) return this.#content;
    this.#look ??= this.#lookAgain(now);
    if (age >= OLDEST_MS || turnedBack) await this.#look;
    return this.#content;
  }

  /** False: the last look found files that cannot be used, and their old content is in use. */
  get areUsable(): boolean {
    return this.#areUsable;
  }

  async #lookAgain(now: number): Promise<void> {
    const { paths, parse } = this.#settings;
    const { logger } = this.#context;
    try {
      // Looked at before they are read: a change in between is then seen at the next look.
      const version = await versionOf(paths);
      const changed = version !== this.#version;
      if (!changed && this.#readTwice) {
        this.#areUsable = true;
        return;
      }
      this.#content = await parse(await readAll(paths));
      this.#version = version;
      this.#areUsable = true;
      this.#readTwice = !changed;
      if (changed) logger.info({ files: paths }, 'changed files are in use');
    } catch (error) {
      this.#areUsable = false;
      if (Math.abs(now - this.#complainedAt) < COMPLAIN_AGAIN_MS) return;
      this.#complainedAt = now;
      logger.warn({ err: error, files: paths }, 'changed files cannot be used: the old content stays in use');
    } finally {
      this.#lookedAt = now;
      this.#look = undefined;
    }
  }
}

async function warnIfExposed(file: string, logger: Logger): Promise<void> {
  const { mode } = await readable(file, stat(file));
  const warning = exposureWarning(file, mode);
  if (warning !== undefined) logger.warn({ file }, warning);
}

/** Differs when a file was written, replaced, or a symlink to it leads elsewhere. */
async function versionOf(paths: readonly string[]): Promise<string> {
  const versions = await Promise.all(
    paths.map(async (path) => {
      const { dev, ino, size, mtimeNs, ctimeNs } = await readable(path, stat(path, { bigint: true }));
      return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
    }),
  );
  return versions.join('\n');
}

async function readAll(paths: readonly string[]): Promise<Buffer[]> {
  return Promise.all(paths.map((path) => readable(path, readFile(path))));
}

async function readable<T>(path: string, read: Promise<T>): Promise<T> {
  try {
    return await read;
  } catch (error) {
    throw new FileError(path, `cannot be read: ${error instanceof Error ? error.message : 'unknown'}`, {
      cause: error,
    });
  }
}
