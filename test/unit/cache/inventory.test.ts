import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Inventory } from '../../../src/cache/catalog/inventory.ts';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../../src/oci/manifest.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';

const digest = (name: string) => digestOf(Buffer.from(name));
const NAMES = ['a', 'b', 'c', 'd', 'e', 'f'];

function inventory(): Inventory {
  return new Inventory(new Metrics({ version: 'test', processMetrics: false }));
}

function order(of: Inventory): Digest[] {
  return [...of.oldestFirst()].map(([at]) => at);
}

test('any order of uses, many within one millisecond, is the order in which things go', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...NAMES), { maxLength: 200 }), (uses) => {
      const held = inventory();
      const expected = NAMES.map(digest);
      for (const name of NAMES) held.add(digest(name), { size: 1, allocated: 1, usedAt: 0 });
      for (const name of uses) {
        held.touch(digest(name), 0);
        expected.push(...expected.splice(expected.indexOf(digest(name)), 1));
      }
      assert.deepEqual(order(held), expected);
    }),
  );
});

test('a manifest goes before what it lists, whichever of them was used last', () => {
  const held = inventory();
  held.add(digest('layer'), { size: 1, allocated: 1, usedAt: 0 });
  held.add(digest('other'), { size: 1, allocated: 1, usedAt: 0 });
  const children = [digest('layer')];
  held.add(digest('image'), { size: 1, allocated: 1, usedAt: 0, mediaType: OCI_MANIFEST, children });
  held.touch(digest('other'), 1);
  held.touch(digest('image'), 1);
  assert.deepEqual(order(held), ['other', 'image', 'layer'].map(digest));
});

test('a use is seen at once, and handed over to be recorded once', () => {
  const held = inventory();
  held.add(digest('layer'), { size: 1, allocated: 1, usedAt: 5 });
  held.takeUsed();
  for (const at of [6, 7, 8]) held.touch(digest('layer'), at);
  assert.equal(held.get(digest('layer'))?.usedAt, 8);
  assert.deepEqual(
    held.takeUsed().map(([at, { usedAt }]) => [at, usedAt]),
    [[digest('layer'), 8]],
  );
  assert.deepEqual(held.takeUsed(), []);
});
