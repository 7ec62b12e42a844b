/** One run of Trivy: in a folder of its own, with an environment of its own, and never larger than it may be. */
import { constants } from 'node:fs';
import { access, mkdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import type { Clock } from '../../../../clock.ts';
import { type ChildResult, runChild } from '../child/child.ts';
import type { ScanSettings } from '../scanner/settings.ts';
import { bytesBelow, Folders, type RunFolder } from './folders.ts';

/** A report of this length is not read. */
const MAX_REPORT_BYTES = 64 * 1024 * 1024;
const LOOK_MS = 500;
const PRIVATE_FILE = 0o600;

/** The run was ended, because its files took more than they may. */
export class TooLargeError extends Error {
  override readonly name = 'TooLargeError';
}

export interface RunContext {
  clock: Clock;
  /** The mirror's own `PATH`. */
  path: string;
}

export interface Run {
  args: readonly string[];
  /** Bytes that its files may take, with what it adds to the cache. */
  maxBytes: number;
  /** Credentials by host, as Docker's configuration has them. */
  credentials?: Readonly<Record<string, { auth: string }>>;
  /** The folder of the run. Absent: one of its own, which is removed with it. */
  within?: RunFolder;
}

export class TrivyRuns {
  readonly folders: Folders;
  readonly #settings: ScanSettings;
  readonly #context: RunContext;
  readonly #prlimit: string | undefined;

  private constructor(
    settings: ScanSettings,
    context: RunContext,
    folders: Folders,
    prlimit: string | undefined,
  ) {
    this.#settings = settings;
    this.#context = context;
    this.folders = folders;
    this.#prlimit = prlimit;
  }

  /**
   * @throws {Error} `memoryBytes` is set and `prlimit` is not on `PATH`
   * @throws what the file system throws
   */
  static async open(settings: ScanSettings, context: RunContext): Promise<TrivyRuns> {
    const prlimit = settings.memoryBytes === null ? undefined : await find('prlimit', context.path);
    if (settings.memoryBytes !== null && prlimit === undefined)
      throw new Error('scan.memory needs the program prlimit: install util-linux, or leave the setting out');
    return new TrivyRuns(settings, context, await Folders.open(settings.directory), prlimit);
  }

  /**
   * Runs Trivy to its end.
   *
   * The limit of memory is one of address space (`prlimit --as`, Linux): it counts the databases, which Trivy maps into it,
   * too. Below 4 GiB a Trivy with its usual databases does not work.
   *
   * @throws {SpawnError}
   * @throws {TooLargeError}
   * @throws the reason of `signal`, when it aborts
   */
  async run({ args, maxBytes, credentials, within }: Run, signal: AbortSignal): Promise<ChildResult> {
    await using own = within === undefined ? await this.folders.makeRun() : undefined;
    const folder = (within ?? own) as RunFolder;
    const [temporary, docker] = [join(folder.path, 'tmp'), join(folder.path, 'docker')];
    await mkdir(temporary);
    await mkdir(docker);
    const options = { mode: PRIVATE_FILE };
    await writeFile(join(docker, 'config.json'), JSON.stringify({ auths: credentials ?? {} }), options);
    const env = {
      ...this.#settings.environment,
      ...{ PATH: this.#context.path, HOME: folder.path, TMPDIR: temporary, DOCKER_CONFIG: docker },
    };
    const tooLarge = new AbortController();
    const watching = new AbortController();
    const watched = this.#watch(folder.path, maxBytes, tooLarge, watching.signal);
    try {
      const either = AbortSignal.any([signal, tooLarge.signal]);
      const command = { ...this.#command(args), env, cwd: folder.path, maxOutputBytes: MAX_REPORT_BYTES };
      return await runChild(command, this.#context.clock, either);
    } finally {
      watching.abort();
      await watched;
    }
  }

  #command(args: readonly string[]): { command: string; args: readonly string[] } {
    const { trivy = 'trivy', memoryBytes } = this.#settings;
    if (this.#prlimit === undefined) return { command: trivy, args };
    return { command: this.#prlimit, args: [`--as=${memoryBytes}:${memoryBytes}`, '--', trivy, ...args] };
  }

  async #watch(folder: string, maxBytes: number, end: AbortController, signal: AbortSignal): Promise<void> {
    const before = await bytesBelow(this.folders.cache);
    while (!signal.aborted) {
      const own = await bytesBelow(folder);
      const added = Math.max(0, (await bytesBelow(this.folders.cache)) - before);
      if (own + added > maxBytes) return end.abort(new TooLargeError('its files took more than they may'));
      await this.#context.clock.sleep(LOOK_MS, signal).catch(() => undefined);
    }
  }
}

async function find(program: string, path: string): Promise<string | undefined> {
  for (const folder of path.split(delimiter)) {
    const candidate = join(folder, program);
    const isThere = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (folder !== '' && isThere) return candidate;
  }
  return undefined;
}
