import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isRealmAllowed } from '../../../src/upstream/auth/realm.ts';

const HUB = 'https://registry-1.docker.io/v2/';

function allowed(realm: string, challenger: string, realmHosts: string[] = []): boolean {
  return isRealmAllowed(new URL(realm), new URL(challenger), realmHosts);
}

suite('a token server that may see the credentials of the registry', () => {
  for (const [why, realm, challenger] of [
    ['is on the same host', 'https://quay.io/v2/auth', 'https://quay.io/v2/'],
    [
      'is on the same host at another port',
      'https://registry.corp:5001/token',
      'https://registry.corp:5000/',
    ],
    ['belongs to the same domain', 'https://auth.docker.io/token', HUB],
    ['is the domain itself', 'https://docker.io/token', HUB],
    [
      'has the domain under a suffix of two labels',
      'https://auth.corp.co.uk/',
      'https://registry.corp.co.uk/',
    ],
    ['is reached better than its registry', 'https://auth.docker.io/token', 'http://registry-1.docker.io/'],
    ['is as local as its registry', 'http://127.0.0.1:9000/token', 'http://127.0.0.1:5000/v2/'],
    ['has the same IPv6 address', 'http://[::1]:9000/token', 'http://[0:0:0:0:0:0:0:1]:5000/v2/'],
  ] as const) {
    test(why, () => assert.equal(allowed(realm, challenger), true));
  }
});

suite('a token server that may not', () => {
  for (const [why, realm, challenger] of [
    ['is somewhere else', 'https://auth.example.com/token', HUB],
    ['only ends like the registry’s domain', 'https://evildocker.io/token', HUB],
    ['only ends like the registry’s host', 'https://evilquay.io/token', 'https://quay.io/v2/'],
    ['has the registry’s domain in its name', 'https://docker.io.evil.com/token', HUB],
    ['has the registry’s host as its user name', 'https://registry-1.docker.io@evil.com/token', HUB],
    ['is reached without TLS', 'http://auth.docker.io/token', HUB],
    ['is reached without TLS on the same host', 'http://registry-1.docker.io/token', HUB],
    ['is no HTTP server', 'ftp://registry-1.docker.io/token', 'http://registry-1.docker.io/'],
    ['shares only a public suffix', 'https://b.co.uk/token', 'https://a.co.uk/'],
    ['shares only a hoster’s domain', 'https://evil.github.io/token', 'https://victim.github.io/'],
    [
      'shares only a top-level domain that is private',
      'https://evil.internal/',
      'https://registry.internal/',
    ],
    ['is the hoster itself', 'https://github.io/token', 'https://victim.github.io/'],
    ['has a neighbouring address', 'http://10.0.0.2/token', 'http://10.0.0.1/'],
    ['has an address that ends alike', 'http://1.127.0.0.1.evil.com/token', 'http://127.0.0.1/'],
    ['is this machine, for a registry that is not', 'https://localhost/token', HUB],
    ['has another name of one label', 'http://tokens/token', 'http://registry/'],
  ] as const) {
    test(why, () => assert.equal(allowed(realm, challenger), false));
  }
});

test('realmHosts adds exactly the hosts that it names', () => {
  const nvidia = 'https://nvcr.io/v2/';
  assert.equal(allowed('https://authn.nvidia.com/token', nvidia), false);
  assert.equal(allowed('https://authn.nvidia.com/token', nvidia, ['authn.nvidia.com']), true);
  assert.equal(allowed('https://AUTHN.nvidia.com/token', nvidia, ['authn.nvidia.com']), true);
  assert.equal(allowed('https://other.nvidia.com/token', nvidia, ['authn.nvidia.com']), false);
  assert.equal(allowed('https://x.authn.nvidia.com/token', nvidia, ['authn.nvidia.com']), false);
});

test('a port in realmHosts allows that port alone; without one, all', () => {
  const registry = 'https://registry.corp.example/';
  assert.equal(allowed('https://sso.example:8443/', registry, ['sso.example:8443']), true);
  assert.equal(allowed('https://sso.example:9443/', registry, ['sso.example:8443']), false);
  assert.equal(allowed('https://sso.example:9443/', registry, ['sso.example']), true);
});

test('realmHosts does not allow to leave TLS', () => {
  assert.equal(allowed('http://authn.nvidia.com/', 'https://nvcr.io/', ['authn.nvidia.com']), false);
});
