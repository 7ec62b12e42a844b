import assert from 'node:assert/strict';
import type { LookupAddress, LookupOptions } from 'node:dns';
import { suite, test } from 'node:test';
import {
  isSpecialAddress,
  isSpecialHost,
  publicLookup,
  SpecialAddressError,
} from '../../../src/upstream/network/address-rule.ts';

const PUBLIC_IPV4 = '198.41.0.4';
const PUBLIC_IPV6 = '2001:503:ba3e::2:30';

/** Call it with literals and localhost only, because any other name would ask a name server. */
function look(name: string, options: LookupOptions = {}): Promise<string | LookupAddress[]> {
  return new Promise((resolve, reject) => {
    publicLookup(name, options, (error, address) => (error === null ? resolve(address) : reject(error)));
  });
}

suite('an address that is not public', () => {
  for (const address of [
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '10.255.255.255',
    '100.64.0.1',
    '127.0.0.1',
    '127.255.255.254',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.0.0.192',
    '192.168.1.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '::ffff:169.254.169.254',
    '64:ff9b::10.0.0.1',
    '64:ff9b::a9fe:a9fe',
    '64:ff9b:1::1.1.1.1',
    '2002:7f00:1::1',
    'fec0::1',
    'fc00::1',
    'fd00:ec2::254',
    'fe80::1',
    'fe80::1%eth0',
    'ff02::1',
  ]) {
    test(address, () => assert.equal(isSpecialAddress(address), true));
  }
});

suite('an address that is public', () => {
  for (const address of [
    '1.1.1.1',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '128.0.0.1',
    '169.253.255.255',
    '172.15.255.255',
    '172.32.0.0',
    '192.167.255.255',
    '192.169.0.0',
    '198.17.255.255',
    '223.255.255.255',
    PUBLIC_IPV6,
    '::ffff:1.1.1.1',
    '64:ff9b::1.1.1.1',
    '64:ff9b::8c52:7903',
  ]) {
    test(address, () => assert.equal(isSpecialAddress(address), false));
  }
});

suite('a URL to a host that is not public is recognized, however the host is written', () => {
  for (const url of [
    'http://127.0.0.1/',
    'http://127.0.0.1./',
    'http://127.1/',
    'http://2130706433/',
    'http://0x7f000001/',
    'http://0177.0.0.1/',
    'http://0/',
    'http://2852039166/latest/meta-data/',
    'http://[::1]/',
    'http://[::]/',
    'http://[::ffff:127.0.0.1]/',
    'http://[::ffff:7f00:1]/',
    'http://[fd00:ec2::254]/',
    'http://localhost/',
    'http://LOCALHOST/',
    'http://localhost./',
    'http://anything.localhost/',
    'http://１２７.0.0.1/',
  ]) {
    test(url, () => assert.equal(isSpecialHost(new URL(url).hostname), true));
  }
});

test('a public address and an ordinary name may be asked', () => {
  for (const url of [
    `http://${PUBLIC_IPV4}/`,
    `http://[${PUBLIC_IPV6}]/`,
    'http://quay.io/',
    'http://localhost.example/',
    'http://notlocalhost/',
    'http://10.0.0.1.example/',
  ]) {
    assert.equal(isSpecialHost(new URL(url).hostname), false, url);
  }
});

test('a name that leads to a special address is refused, and the refusal says how to allow it', async () => {
  for (const options of [{}, { all: true }, { family: 4 }]) {
    await assert.rejects(look('localhost', options), (error) => {
      assert.ok(error instanceof SpecialAddressError);
      assert.match(error.message, /^localhost resolves to (127\.0\.0\.1|::1), .*allowPrivateAddresses$/);
      return true;
    });
  }
});

test('a public address is found as the system finds it, alone or in a list', async () => {
  assert.equal(await look(PUBLIC_IPV4), PUBLIC_IPV4);
  assert.equal(await look(PUBLIC_IPV6), PUBLIC_IPV6);
  assert.deepEqual(await look(PUBLIC_IPV4, { all: true }), [{ address: PUBLIC_IPV4, family: 4 }]);
});
