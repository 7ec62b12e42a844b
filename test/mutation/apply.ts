import type { Mutation } from './mutation.ts';

/** @throws {Error} if the code to replace does not occur exactly once, or if nothing would change */
export function apply({ file, replace, by }: Mutation, source: string): string {
  const parts = source.split(replace);
  if (parts.length !== 2) {
    throw new Error(`${file} holds ${JSON.stringify(replace)} ${parts.length - 1} times; it must be once`);
  }
  if (replace === by) throw new Error(`${file}: ${JSON.stringify(replace)} is replaced by itself`);
  return parts.join(by);
}
