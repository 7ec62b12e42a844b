import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isRedirect, redirectTarget } from '../../../src/upstream/network/redirects.ts';

const REGISTRY = 'https://quay.io/v2/org/app/blobs/sha256:abc';
const PRIVATE = [
  '127.0.0.1',
  '10.0.0.1',
  '169.254.169.254',
  '192.168.0.1',
  '0.0.0.0',
  '2130706433',
  '0x7f.1',
  '[::1]',
  '[::ffff:127.0.0.1]',
  '[fd00:ec2::254]',
  'localhost',
  'metadata.localhost',
];
const EIGHT_KIB = 8 * 1024;

function target(location: string | undefined, from = REGISTRY, allowSpecial = false): string {
  const outcome = redirectTarget(location, new URL(from), allowSpecial);
  return typeof outcome === 'string' ? `refused: ${outcome}` : outcome.href;
}

test('the five redirects are redirects, and no other status is', () => {
  const statuses = Array.from({ length: 500 }, (_, at) => 100 + at);
  assert.deepEqual(statuses.filter(isRedirect), [301, 302, 303, 307, 308]);
});

suite('a redirect is followed', () => {
  for (const [why, location, expected] of [
    ['to another host', 'https://cdn01.quay.io/x?sig=a%2Fb', 'https://cdn01.quay.io/x?sig=a%2Fb'],
    ['to another path', '/blobs/1', 'https://quay.io/blobs/1'],
    ['to a neighbour', 'other', 'https://quay.io/v2/org/app/blobs/other'],
    ['to another query', '?again=1', `${REGISTRY}?again=1`],
    ['without a scheme', '//cdn.example/x', 'https://cdn.example/x'],
    ['to a public address', 'https://198.41.0.4/x', 'https://198.41.0.4/x'],
    ['without its user name and password', 'https://me:secret@cdn.example/x', 'https://cdn.example/x'],
  ] as const) {
    test(why, () => assert.equal(target(location), expected));
  }
  test('from http to https', () =>
    assert.equal(target('https://quay.io/x', 'http://quay.io/'), 'https://quay.io/x'));
  test('from http to http', () =>
    assert.equal(target('http://cdn.example/', 'http://quay.io/'), 'http://cdn.example/'));
});

suite('a redirect is refused', () => {
  for (const [why, location] of [
    ['without Location', undefined],
    ['with an empty one', ''],
    ['to a file', 'file:///etc/passwd'],
    ['to gopher', 'gopher://quay.io/'],
    ['to data', 'data:application/json,{}'],
    ['to script', 'javascript:alert(1)'],
    ['to something that is no URL', 'https://'],
    ['to a port that is none', 'https://quay.io:99999/'],
    ['from https to http', 'http://quay.io/'],
    ['with more than 8 KiB', `/${'a'.repeat(EIGHT_KIB)}`],
  ] as const) {
    test(why, () => assert.match(target(location), /^refused: sent a redirect /));
  }
  for (const host of PRIVATE) {
    test(`to ${host}`, () => {
      assert.match(target(`https://${host}/latest/`), /^refused: sent a redirect to .* is not public/);
      assert.match(
        target(`http://${host}:8080/`, 'http://quay.io/'),
        /is not public.*allowPrivateAddresses$/,
      );
    });
  }
});

test('an upstream that may redirect to private addresses does so', () => {
  for (const host of PRIVATE) {
    assert.equal(target(`https://${host}/x`, REGISTRY, true), new URL(`https://${host}/x`).href);
  }
});

test('a private upstream may redirect to itself', () => {
  assert.equal(target('/x', 'http://10.0.0.1:5000/v2/'), 'http://10.0.0.1:5000/x');
});

test('a refusal shows neither path nor query, because they can contain a signature', () => {
  for (const location of [
    'http://quay.io/path?sig=SECRET',
    'https://10.0.0.1/path?sig=SECRET',
    'file:///path?sig=SECRET',
  ]) {
    const refusal = target(location);
    assert.match(refusal, /^refused: /);
    assert.doesNotMatch(refusal, /path|SECRET/);
  }
});
