/** Images under decision, and the route from which a scanner pulls them. */
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import type { Digest } from '../../src/oci/digest.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseManifest } from '../../src/oci/manifest.ts';
import type { Repository } from '../../src/oci/reference.ts';
import type { Subject } from '../../src/policy/parts/part.ts';
import type { QuarantineContent } from '../../src/policy/parts/scan/quarantine/content.ts';
import { QuarantineRoute } from '../../src/policy/parts/scan/quarantine/route.ts';
import type { ScanSettings } from '../../src/policy/parts/scan/scanner/settings.ts';
import { cleanUp } from './cleanup.ts';
import type { TestImage, TestManifest } from './images.ts';

export const silent = pino({ level: 'silent' });

export function subjectOf({ digest, mediaType, bytes }: TestManifest): Subject {
  const parsed = parseManifest(bytes, mediaType);
  if (parsed === undefined) throw new Error('not a manifest');
  return { upstream: 'ghcr.io', repository: 'org/app' as Repository, digest, mediaType, bytes, parsed };
}

/** A manifest out of JSON. */
export function manifestOf(mediaType: string, content: Record<string, unknown>): TestManifest {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...content }));
  return { digest: digestOf(bytes), mediaType, bytes };
}

/** The blobs of an image, in memory, in pieces of at most 64 KiB. */
export class TestContent implements QuarantineContent {
  readonly #blobs: ReadonlyMap<Digest, Buffer>;
  /** Blobs that are open now. */
  open = 0;
  /** Each piece waits for it. */
  gate: Promise<unknown> = Promise.resolve();
  /** Thrown instead of the second piece of a blob. */
  failure: Error | undefined;
  readonly #watchers: (() => void)[] = [];

  constructor({ blobs }: Pick<TestImage, 'blobs'>) {
    this.#blobs = new Map(blobs.map((bytes) => [digestOf(bytes), bytes]));
  }

  blob(digest: Digest): ReturnType<QuarantineContent['blob']> {
    const bytes = this.#blobs.get(digest);
    if (bytes === undefined) return Promise.resolve(undefined);
    this.open += 1;
    for (const resolve of this.#watchers.splice(0)) resolve();
    return Promise.resolve({
      size: bytes.length,
      stream: (start) => this.#pieces(bytes.subarray(start)),
      close: () => {
        this.open -= 1;
        return Promise.resolve();
      },
    });
  }

  /** Resolves when the next blob is opened. */
  opened(): Promise<void> {
    return new Promise((resolve) => this.#watchers.push(resolve));
  }

  async *#pieces(bytes: Buffer): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += 65_536) {
      await this.gate;
      if (this.failure !== undefined) throw this.failure;
      yield bytes.subarray(at, at + 65_536);
    }
  }
}

export async function openRoute(t: Pick<TestContext, 'after'>): Promise<QuarantineRoute> {
  const route = await QuarantineRoute.open({ host: '127.0.0.1', port: 0 }, silent);
  cleanUp(t, () => route[Symbol.asyncDispose]());
  return route;
}

export function scanSettings(settings: Partial<ScanSettings> & { directory: string }): ScanSettings {
  return {
    ...{ failOn: 'critical', ignoreUnfixed: false, secrets: false, misconfigurations: false, except: [] },
    ...{ ifUnavailable: 'deny', ifFailed: 'deny', ifNothingFound: 'allow', onNewFinding: 'deny' },
    ...{ timeout: 20_000, rescan: 86_400_000, environment: {} },
    ...{ maxDirectoryBytes: 1024 ** 3, concurrency: 2, memoryBytes: null },
    ...settings,
  };
}
