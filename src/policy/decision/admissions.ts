/**
 * Images that somebody has let in by hand, past named policies, with a reason and an end. A deny list is never lifted.
 *
 * Kept in a file of the cache directory that only grows, so that it can be read later who has let in what.
 */
import { appendFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { RepositoryKey } from '../../cache/index/index-store.ts';
import { errnoOf } from '../../files/errors.ts';
import { type Digest, parseDigest } from '../../oci/digest.ts';
import { parseRepository } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/log.ts';

/** Lies in the cache directory. */
const FILE_NAME = 'admissions.jsonl';

export interface Admission extends RepositoryKey {
  digest: Digest;
  /** Names of policies. */
  policies: readonly string[];
  reason: string;
  /** When it ends; milliseconds since the epoch. */
  until: number;
  /** Who has let it in. */
  by: string;
  /** When; milliseconds since the epoch. */
  at: number;
}

const ADMISSION = z.strictObject({
  upstream: z.string(),
  repository: z.string().transform((text, context) => parseRepository(text) ?? refuse(context)),
  digest: z.string().transform((text, context) => parseDigest(text) ?? refuse(context)),
  policies: z.array(z.string()),
  reason: z.string(),
  until: z.number(),
  by: z.string(),
  at: z.number(),
});

export class Admissions {
  readonly #path: string;
  readonly #all: Admission[];

  private constructor(path: string, all: Admission[]) {
    this.#path = path;
    this.#all = all;
  }

  /** @throws the system's error if the file is there and cannot be read */
  static async open(directory: string, logger: Logger): Promise<Admissions> {
    const path = join(directory, FILE_NAME);
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return '';
      throw error;
    });
    const lines = text.split('\n').filter((line) => line !== '');
    const all = lines.flatMap((line) => read(line) ?? []);
    if (all.length < lines.length)
      logger.warn({ file: path, lines: lines.length - all.length }, 'lines that cannot be read are skipped');
    return new Admissions(path, all);
  }

  /** Those that hold. */
  current(now: number): Admission[] {
    return this.#all.filter(({ until }) => now < until);
  }

  /** Those that lift a policy in a repository. */
  lifting(policy: string, { upstream, repository }: RepositoryKey, now: number): readonly Admission[] {
    if (this.#all.length === 0) return NONE; // the usual case
    return this.current(now).filter(
      (admission) =>
        admission.upstream === upstream &&
        admission.repository === repository &&
        admission.policies.includes(policy),
    );
  }

  /** @throws the system's error if it cannot be written: then it does not hold */
  async add(admission: Admission): Promise<void> {
    // Begins with a line break, because a crash may have torn the line before.
    await appendFile(this.#path, `\n${JSON.stringify(admission)}\n`, { mode: 0o600, flush: true });
    this.#all.push(admission);
  }
}

const NONE: readonly Admission[] = [];

function read(line: string): Admission | undefined {
  try {
    return ADMISSION.parse(JSON.parse(line));
  } catch {
    return undefined; // counted by the caller
  }
}

function refuse(context: z.RefinementCtx): never {
  context.addIssue('unreadable');
  return z.NEVER;
}
