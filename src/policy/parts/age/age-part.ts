/**
 * Lets in what was first seen here long enough ago. What counts is our own clock: the date in the config of an image is
 * whatever its builder wrote.
 */
import type { RepositoryKey } from '../../../cache/index/index-store.ts';
import type { Clock } from '../../../clock.ts';
import type { Digest } from '../../../oci/digest.ts';
import { ALLOWED, type Finding, type PolicyPart, type Subject } from '../part.ts';
import type { Sightings } from './sightings.ts';

export interface AgeContext {
  clock: Clock;
  sightings: Sightings;
}

export class AgePart implements PolicyPart {
  readonly #minimumMs: number;
  readonly #context: AgeContext;

  constructor(minimumMs: number, context: AgeContext) {
    this.#minimumMs = minimumMs;
    this.#context = context;
  }

  async judge(subject: Subject): Promise<Finding> {
    const { clock, sightings } = this.#context;
    const notBefore = this.notBefore(subject, subject.digest);
    if (notBefore <= clock.now()) return ALLOWED;
    const [time, seen] = [
      new Date(notBefore),
      new Date(sightings.firstSeen(subject, subject.digest) ?? clock.now()),
    ];
    return {
      allowed: false,
      reason: `it is too new: it was first seen here at ${seen.toISOString()}`,
      advice: `it comes in from ${time.toISOString()}`,
      detail: { missing: 'age', notBefore: time.toISOString() },
      until: notBefore,
    };
  }

  /** From when on it may come in; milliseconds since the epoch. */
  notBefore(key: RepositoryKey, digest: Digest): number {
    const { clock, sightings } = this.#context;
    return (sightings.firstSeen(key, digest) ?? clock.now()) + this.#minimumMs;
  }
}
