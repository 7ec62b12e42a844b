import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { proxyForAll, proxyFromEnvironment } from '../../../src/upstream/network/proxy-rule.ts';

const PROXY = 'http://proxy.corp:3128';

function proxied(target: string, noProxy: string): boolean {
  const rule = proxyFromEnvironment({ HTTPS_PROXY: PROXY, HTTP_PROXY: PROXY, NO_PROXY: noProxy });
  return rule(new URL(target)) !== undefined;
}

suite('NO_PROXY is read as Go reads it', () => {
  for (const [noProxy, direct, through] of [
    ['', [], ['https://quay.io', 'http://10.0.0.1', 'https://[2001:db8::1]']],
    ['*', ['https://quay.io', 'http://10.0.0.1', 'https://[2001:db8::1]:5000'], []],
    [
      'quay.io',
      ['https://quay.io', 'https://QUAY.io.', 'https://cdn.quay.io'],
      ['https://notquay.io', 'https://io'],
    ],
    ['QUAY.IO.', ['https://quay.io'], ['https://ghcr.io']],
    ['.corp.example', ['https://a.corp.example', 'https://b.a.corp.example'], ['https://corp.example']],
    ['*.corp.example', ['https://a.corp.example'], ['https://corp.example', 'https://acorp.example']],
    [
      'quay.io:443',
      ['https://quay.io', 'https://cdn.quay.io:443'],
      ['http://quay.io', 'https://quay.io:5000'],
    ],
    ['quay.io:80', ['http://quay.io'], ['https://quay.io']],
    ['10.1.2.3', ['http://10.1.2.3:5000'], ['http://10.1.2.4', 'http://10.1.2.3.example']],
    ['10.1.2.3:5000', ['http://10.1.2.3:5000'], ['http://10.1.2.3']],
    ['10.0.0.0/8', ['http://10.255.0.1', 'http://0x0a000001'], ['http://11.0.0.1', 'http://10.example']],
    ['2001:db8::1', ['https://[2001:db8:0:0::1]'], ['https://[2001:db8::2]']],
    ['[2001:db8::1]:5000', ['https://[2001:db8::1]:5000'], ['https://[2001:db8::1]']],
    ['[2001:db8::1]', ['https://[2001:db8::1]:5000'], ['https://[2001:db8::2]']],
    ['2001:db8::/32', ['https://[2001:db8:ffff::1]'], ['https://[2001:db9::1]', 'https://10.0.0.1']],
    [
      'a.example, b.example c.example,',
      ['https://a.example', 'https://b.example', 'https://c.example'],
      ['https://d.example'],
    ],
    ['10.0.0.0/33,/,:,[,quay.io:x', [], ['http://10.0.0.1', 'https://quay.io']],
  ] as const) {
    test(`"${noProxy}"`, () => {
      for (const target of direct) assert.equal(proxied(target, noProxy), false, target);
      for (const target of through) assert.equal(proxied(target, noProxy), true, target);
    });
  }
});

suite('this machine is never reached through a proxy', () => {
  for (const target of [
    'http://localhost:5000',
    'https://LOCALHOST',
    'http://127.0.0.1',
    'http://127.8.9.1',
    'http://[::1]:5000',
    'http://[::ffff:127.0.0.1]',
  ])
    test(target, () => {
      assert.equal(proxied(target, ''), false);
      assert.equal(proxyForAll(PROXY)(new URL(target)), undefined);
    });
});

suite('the environment names a proxy for each scheme', () => {
  for (const [what, environment, https, http] of [
    ['nothing', {}, undefined, undefined],
    ['HTTPS_PROXY', { HTTPS_PROXY: 'http://a:1' }, 'a:1', undefined],
    ['HTTP_PROXY', { HTTP_PROXY: 'http://b:1' }, undefined, 'b:1'],
    ['lower case', { https_proxy: 'http://a:1', http_proxy: 'http://b:1' }, 'a:1', 'b:1'],
    [
      'lower case before upper case',
      { https_proxy: 'http://a:1', HTTPS_PROXY: 'http://x:1' },
      'a:1',
      undefined,
    ],
    ['lower case, though empty', { https_proxy: '', HTTPS_PROXY: 'http://x:1' }, undefined, undefined],
    [
      'no_proxy before NO_PROXY',
      { HTTPS_PROXY: 'http://a:1', no_proxy: 'x', NO_PROXY: '*' },
      'a:1',
      undefined,
    ],
    ['a proxy without scheme', { HTTPS_PROXY: 'a.corp:1' }, 'a.corp:1', undefined],
    ['a proxy without port', { HTTPS_PROXY: 'http://a.corp/' }, 'a.corp', undefined],
    ['a proxy with TLS', { HTTPS_PROXY: 'https://a.corp:1' }, 'a.corp:1', undefined],
    ['a proxy by its address', { HTTPS_PROXY: 'http://[fd00::1]:3128' }, '[fd00::1]:3128', undefined],
  ] as const) {
    test(what, () => {
      const rule = proxyFromEnvironment(environment);
      assert.equal(rule(new URL('https://quay.io'))?.url.host, https);
      assert.equal(rule(new URL('http://quay.io'))?.url.host, http);
    });
  }
});

test('a proxy that cannot be used ends the start, and its password is not shown', () => {
  for (const value of [
    'socks5://u:hunter2@a:1',
    'http://u:hunter2@',
    'http://u:hunter2@a:port',
    'ftp://hunter2',
  ]) {
    assert.throws(
      () => proxyFromEnvironment({ HTTPS_PROXY: value }),
      (error: Error) => error.message === 'HTTPS_PROXY is not an http:// or https:// URL',
      value,
    );
  }
});

suite('a proxy gets the credentials that are meant for it', () => {
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
  for (const [url, expected] of [
    ['http://a:1', undefined],
    ['http://bob:s3cret@a:1', basic('bob:s3cret')],
    ['http://bob@a:1', basic('bob:')],
    ['http://corp%5Cbob:p%40ss%3A@a:1', basic('corp\\bob:p@ss:')],
    ['http://bob:100%@a:1', basic('bob:100%')],
  ] as const) {
    test(url, async () => {
      const proxy = proxyFromEnvironment({ HTTPS_PROXY: url })(new URL('https://quay.io'));
      assert.equal(await proxy?.authorization(), expected);
      assert.equal(proxy?.url.href, 'http://a:1/');
    });
  }

  test('a password of its own, read each time', async () => {
    let password = 'old';
    const proxy = proxyForAll('http://bob@a:1', async () => password)(new URL('https://quay.io'));
    assert.equal(await proxy?.authorization(), basic('bob:old'));
    password = 'new';
    assert.equal(await proxy?.authorization(), basic('bob:new'));
  });
});
