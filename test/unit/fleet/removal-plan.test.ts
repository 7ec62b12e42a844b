/** What goes with an image that is removed from a repository of a fleet. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planRemoval } from '../../../src/fleet/journal/removal-plan.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import type { Tag } from '../../../src/oci/reference.ts';

const names = ['index', 'amd64', 'arm64', 'shared', 'layer', 'other', 'signed'] as const;
const of = Object.fromEntries(names.map((name) => [name, digestOf(Buffer.from(name))])) as Record<
  (typeof names)[number],
  Digest
>;
const LISTS = new Map([
  [of.index, [of.amd64, of.arm64]],
  [of.amd64, [of.shared, of.layer]],
  [of.arm64, [of.shared]],
  [of.other, [of.layer]],
]);
const tag = (name: string, digest: Digest) => ({ tag: name as Tag, digest });

test('a tag takes all along that nothing else of the repository lists', () => {
  const view = { tags: [tag('1', of.index), tag('2', of.other)], lists: LISTS };
  const plan = planRemoval(view, '1' as Tag);
  assert.deepEqual(plan.tags, ['1']);
  assert.deepEqual(new Set(plan.digests), new Set([of.index, of.amd64, of.arm64, of.shared]));
  assert.equal(plan.digests[0], of.index, 'a manifest comes before what it lists');
});

test('a tag takes nothing along that another tag means, itself or as a part of it', () => {
  const both = { tags: [tag('1', of.index), tag('2', of.index)], lists: LISTS };
  assert.deepEqual(planRemoval(both, '1' as Tag), { tags: ['1'], digests: [] });
  const part = { tags: [tag('1', of.index), tag('2', of.arm64)], lists: LISTS };
  assert.deepEqual(new Set(planRemoval(part, '1' as Tag).digests), new Set([of.index, of.amd64]));
});

test('a digest takes its tags along, and one that an index lists stays with it', () => {
  const view = { tags: [tag('1', of.index), tag('2', of.index)], lists: LISTS };
  assert.deepEqual(planRemoval(view, of.index).tags, ['1', '2']);
  assert.deepEqual(planRemoval(view, of.amd64), { tags: [], digests: [] });
});

test('all meanings of a tag go', () => {
  const view = { tags: [tag('1', of.index), tag('1', of.other)], lists: LISTS };
  assert.deepEqual(
    new Set(planRemoval(view, '1' as Tag).digests),
    new Set(names.slice(0, -1).map((name) => of[name])),
  );
});
