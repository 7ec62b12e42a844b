import assert from 'node:assert/strict';
import { test } from 'node:test';
import { discoveryUrl, issuerUrlProblem } from '../../../src/access/oidc/issuer-url.ts';

for (const url of [
  'https://token.actions.githubusercontent.com',
  'https://gitlab.corp:8443/path/',
  'http://127.0.0.1:8080',
  'http://127.9.9.9',
  'http://[::1]:8080',
  'http://localhost:8080',
]) {
  test(`the issuer ${url} may be asked`, () => {
    assert.equal(issuerUrlProblem(url, false), undefined);
  });
}

for (const [url, problem] of [
  ['http://gitlab.corp', /unencrypted/],
  ['http://10.0.0.1', /unencrypted/],
  ['http://localhost.corp', /unencrypted/],
  ['http://127.0.0.1.corp', /unencrypted/],
  ['ftp://gitlab.corp', /not an https/],
  ['file:///etc/passwd', /not an https/],
  ['gitlab.corp', /not an https/],
  ['https://user@gitlab.corp', /user name or password/],
  ['https://gitlab.corp/#keys', /fragment/],
] as const) {
  test(`the issuer ${url} may not be asked`, () => {
    assert.match(issuerUrlProblem(url, false) ?? '', problem);
  });
}

test('with insecure: true an issuer may be asked over http://', () => {
  assert.equal(issuerUrlProblem('http://gitlab.corp', true), undefined);
});

for (const [issuer, url] of [
  ['https://a.example', 'https://a.example/.well-known/openid-configuration'],
  ['https://a.example/', 'https://a.example/.well-known/openid-configuration'],
  ['https://a.example/tenant/v2.0', 'https://a.example/tenant/v2.0/.well-known/openid-configuration'],
] as const) {
  test(`the discovery document of ${issuer} is at ${url}`, () => {
    assert.equal(discoveryUrl(issuer).href, url);
  });
}
