/**
 * Which records of the fleet count no more, because what they are about was removed after they were written.
 *
 * Each record says up to which number of the journal its writer had applied it. So a record of a node that did not know of
 * a removal is told from one that was written when somebody had pulled the image again.
 */
import type { Digest } from '../../oci/digest.ts';
import { recordSubject } from '../objects/names.ts';
import type { RemovalEntry } from './entries.ts';

export class Removals {
  /** This node has applied all entries up to this number. What it writes says so. */
  applied = 0;
  /** Another one after each removal that this node has learnt of. */
  version = 0;
  /** By what was removed: the number of its last removal. */
  readonly #numbers = new Map<string, number>();
  readonly #subjects = new Map<number, readonly string[]>();
  /** The names of upstreams, by what all nodes call them. */
  readonly #upstreams = new Map<string, string>();

  /** Learns what all nodes call an upstream. */
  know(upstream: string, key: string): void {
    this.#upstreams.set(key, upstream);
  }

  add(number: number, { upstream, repository, tags, digests }: RemovalEntry): void {
    const of = [...tags.map((tag) => `:${tag}`), ...digests.map((digest) => `@${digest}`)];
    const subjects = of.map((one) => `${upstream}/${repository}${one}`);
    this.#subjects.set(number, subjects);
    this.version += 1;
    for (const subject of subjects)
      this.#numbers.set(subject, Math.max(number, this.#numbers.get(subject) ?? 0));
  }

  /** No record is as old as this removal any more. */
  forget(number: number): void {
    for (const subject of this.#subjects.get(number) ?? [])
      if (this.#numbers.get(subject) === number) this.#numbers.delete(subject);
    this.#subjects.delete(number);
  }

  /** Whether what a record is about, or what it means, was removed after it was written. */
  hides(name: string, record: { journal: number; digest?: Digest | undefined }): boolean {
    if (this.#numbers.size === 0) return false;
    const subject = recordSubject(name);
    const upstream = subject && this.#upstreams.get(subject.upstream);
    if (subject === undefined || upstream === undefined) return false;
    const repository = `${upstream}/${subject.repository}`;
    const means = record.digest === undefined ? [] : [`@${record.digest}`];
    return [subject.of, ...means].some(
      (of) => (this.#numbers.get(`${repository}${of}`) ?? 0) > record.journal,
    );
  }
}
