/** An upstream that is never asked: what is not cached is not there. */

import { UpstreamError } from './errors.ts';
import type { Upstream } from './upstream.ts';

export class SealedUpstream implements Upstream {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  headManifest(): Promise<never> {
    return this.#refuse();
  }

  fetchManifest(): Promise<never> {
    return this.#refuse();
  }

  headBlob(): Promise<never> {
    return this.#refuse();
  }

  fetchBlob(): Promise<never> {
    return this.#refuse();
  }

  fetchTags(): Promise<never> {
    return this.#refuse();
  }

  fetchReferrers(): Promise<never> {
    return this.#refuse();
  }

  async close(): Promise<void> {}

  async #refuse(): Promise<never> {
    throw new UpstreamError(
      'sealed',
      this.name,
      'not cached, and this mirror is sealed: it never asks an upstream',
    );
  }
}
