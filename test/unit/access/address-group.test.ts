import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import * as fc from 'fast-check';
import { addressGroup } from '../../../src/access/network/addresses.ts';

suite('the client that an address is counted as', () => {
  for (const [address, group] of [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:0201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:0002::1', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['1::2:3:4:5:6', '1:0:0:2::/64'],
    ['1:2:3:4:5::', '1:2:3:4::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['', ''],
  ] as const) {
    test(`of ${JSON.stringify(address)} is ${group}`, () => assert.equal(addressGroup(address), group));
  }

  test('is the same for all of a /64, and for none outside of it', () => {
    const groups = (count: number) => fc.array(fc.nat(0xffff), { minLength: count, maxLength: count });
    const text = (parts: readonly number[]) => parts.map((part) => part.toString(16)).join(':');
    fc.assert(
      fc.property(groups(4), groups(4), groups(4), groups(4), (network, one, other, elsewhere) => {
        const first = addressGroup(text([...network, ...one]));
        assert.equal(addressGroup(text([...network, ...other])), first);
        fc.pre(network.some((part, at) => part !== elsewhere[at]) && network.some((part) => part !== 0));
        fc.pre(elsewhere.some((part) => part !== 0));
        assert.notEqual(addressGroup(text([...elsewhere, ...one])), first);
      }),
    );
  });
});
