import { LRUCache } from 'lru-cache';
import type { Subject } from '../../src/policy/parts/part.ts';
import type { CleanImages } from '../../src/policy/parts/scan/scan-part.ts';

/** Some 300 bytes each. */
const REMEMBERED = 50_000;

/** Remembers clean images until the process ends: after that, a finding in one of them denies it at its next scan. */
export class RememberedImages implements CleanImages {
  readonly #images = new LRUCache<string, true>({ max: REMEMBERED });

  has(subject: Subject): Promise<boolean> {
    return Promise.resolve(this.#images.has(nameOf(subject)));
  }

  add(subject: Subject): Promise<void> {
    this.#images.set(nameOf(subject), true);
    return Promise.resolve();
  }
}

function nameOf({ upstream, repository, digest }: Subject): string {
  return `${upstream}/${repository}@${digest}`;
}
