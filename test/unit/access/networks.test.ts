import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { canonicalAddress } from '../../../src/access/network/addresses.ts';
import { NetworkList } from '../../../src/access/network/networks.ts';

suite('an address', () => {
  for (const [text, canonical] of [
    ['10.1.2.3', '10.1.2.3'],
    ['::ffff:10.1.2.3', '10.1.2.3'],
    ['::FFFF:10.1.2.3', '10.1.2.3'],
    ['::ffff:a01:203', '10.1.2.3'],
    ['0:0:0:0:0:ffff:10.1.2.3', '10.1.2.3'],
    ['::ffff:255.255.255.255', '255.255.255.255'],
    ['::ffff:0:0', '0.0.0.0'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::ffff:0:10.1.2.3', '::ffff:0:a01:203'],
    ['64:ff9b::10.1.2.3', '64:ff9b::a01:203'],
    ['::', '::'],
  ] as const) {
    test(`${text} is ${canonical}`, () => assert.equal(canonicalAddress(text), canonical));
  }

  for (const text of [
    '',
    'localhost',
    '10.1.2',
    '010.1.2.3',
    '10.1.2.3 ',
    '10.1.2.3/8',
    '[::1]',
    '::ffff:10.1.2',
    '1::2::3',
    '10.1.2.3:80',
  ]) {
    test(`${JSON.stringify(text)} is none`, () => assert.equal(canonicalAddress(text), undefined));
  }
});

suite('a list of networks', () => {
  const isIn = (address: string, ...networks: string[]) =>
    new NetworkList(networks).has(canonicalAddress(address));

  test('has the addresses in them', () => {
    assert.equal(isIn('10.255.255.255', '10.0.0.0/8'), true);
    assert.equal(isIn('11.0.0.0', '10.0.0.0/8'), false);
    assert.equal(isIn('10.0.0.1', '10.0.0.1'), true);
    assert.equal(isIn('10.0.0.2', '10.0.0.1'), false);
    assert.equal(isIn('fd00::1', 'fd00::/8'), true);
    assert.equal(isIn('fe00::1', 'fd00::/8'), false);
    assert.equal(isIn('fd00::1', '10.0.0.0/8', 'fd00::1'), true);
    assert.equal(isIn('1.2.3.4', '0.0.0.0/0'), true);
    assert.equal(isIn('10.9.9.9', '10.1.2.3/8'), true, 'whatever stands after the prefix');
  });

  test('takes IPv4-mapped IPv6 for IPv4, in addresses and in networks', () => {
    assert.equal(isIn('::ffff:10.1.2.3', '10.0.0.0/8'), true);
    assert.equal(isIn('10.1.2.3', '::ffff:10.0.0.0/104'), true);
    assert.equal(isIn('11.1.2.3', '::ffff:10.0.0.0/104'), false);
    assert.equal(isIn('1.2.3.4', '::ffff:0:0/96'), true);
    assert.equal(isIn('1.2.3.4', '::/0'), false, 'IPv4 is not a part of IPv6');
  });

  test('has no address that is not known', () => {
    assert.equal(new NetworkList(['0.0.0.0/0', '::/0']).has(undefined), false);
  });

  test('cannot be made of what is not a network', () => {
    for (const text of [
      '',
      '10.0.0.0/33',
      'fd00::/129',
      '10.0.0.0/',
      '10.0.0.0/8/8',
      'fe80::%eth0/64',
      '::ffff:10.0.0.0/8',
      'x',
      '10.0.0.0/-1',
    ]) {
      assert.throws(() => new NetworkList([text]), RangeError, text);
    }
  });

  test('agrees with arithmetic', () => {
    const octets = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255));
    const number = (parts: number[]) => parts.reduce((sum, part) => sum * 256 + part, 0);
    fc.assert(
      fc.property(octets, octets, fc.integer({ min: 0, max: 32 }), (address, network, bits) => {
        const size = 2 ** (32 - bits);
        const expected = Math.floor(number(address) / size) === Math.floor(number(network) / size);
        assert.equal(isIn(address.join('.'), `${network.join('.')}/${bits}`), expected);
      }),
    );
  });
});
