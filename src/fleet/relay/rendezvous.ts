/** Chooses among nodes without asking anybody: all that know the same nodes choose alike, and each thing another node. */
import { createHash } from 'node:crypto';
import type { Member } from '../nodes/members.ts';

/** @returns the nodes in the order in which to ask them for `what`. When one is gone, the order of the others stays */
export function inTurn(members: readonly Member[], what: string): Member[] {
  const weight = ({ id }: Member) => createHash('sha256').update(`${id} ${what}`).digest('hex');
  return members
    .map((member) => ({ member, weight: weight(member) }))
    .toSorted((a, b) => (a.weight < b.weight ? -1 : 1))
    .map(({ member }) => member);
}
