import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { TrustedProxies } from '../../../src/access/network/client-address.ts';
import type { ForwardedHeader } from '../../../src/access/network/forwarded.ts';
import { isFromAnotherSite } from '../../../src/access/network/web-page.ts';
import { cleanUp } from '../../helpers/cleanup.ts';

const PROXIES = ['10.0.0.0/8', 'fd00::/8'];
const PROXY = '10.0.0.1';

interface Circumstances {
  header?: ForwardedHeader;
  /** Of the connection. */
  address?: string | undefined;
  encrypted?: boolean;
  proxies?: string[];
}

function clientOf(headers: IncomingHttpHeaders, circumstances: Circumstances = {}) {
  const { header, proxies, ...connection } = {
    header: 'x-forwarded-for' as const,
    proxies: PROXIES,
    address: PROXY,
    encrypted: false,
    ...circumstances,
  };
  return new TrustedProxies(proxies, header).clientOf({ host: 'mirror:5000', headers, ...connection });
}

function forwarded(value: string) {
  return clientOf({ forwarded: value }, { header: 'forwarded' });
}

suite('a client that comes without a proxy', () => {
  const lies = {
    'x-forwarded-for': '192.0.2.9',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'evil',
    forwarded: 'for=192.0.2.9;proto=https;host=evil',
  };
  const direct = { address: '192.0.2.1', secure: false, host: 'mirror:5000', viaProxy: false };

  test('is at the other end of its connection, whatever its headers say', () => {
    for (const header of ['x-forwarded-for', 'forwarded'] as const) {
      assert.deepEqual(clientOf(lies, { header, address: '192.0.2.1' }), direct);
      assert.deepEqual(clientOf(lies, { header, address: '::ffff:192.0.2.1', encrypted: true }), {
        ...direct,
        secure: true,
      });
      assert.deepEqual(clientOf(lies, { header, address: PROXY, proxies: [] }), {
        ...direct,
        address: PROXY,
      });
    }
  });

  test('has no address where the connection has none', () => {
    assert.deepEqual(clientOf(lies, { address: undefined }), { ...direct, address: undefined });
  });
});

for (const [header, headersOf] of [
  ['x-forwarded-for', (...nodes: string[]) => ({ 'x-forwarded-for': nodes.join(', ') })],
  [
    'forwarded',
    (...nodes: string[]) => ({
      forwarded: nodes
        .map(
          (node) => `for=${/^[\w.-]+$/.test(node) ? node : `"${node.includes(':') ? `[${node}]` : node}"`}`,
        )
        .join(', '),
    }),
  ],
] as const) {
  suite(`behind trusted proxies that write ${header}`, () => {
    const addressOf = (...nodes: string[]) => clientOf(headersOf(...nodes), { header }).address;

    test('the client is the first from the right that is not a trusted proxy', () => {
      assert.equal(addressOf('192.0.2.1'), '192.0.2.1');
      assert.equal(addressOf('192.0.2.1', '10.0.0.2', 'fd00::2'), '192.0.2.1');
      assert.equal(addressOf('198.51.100.1', '192.0.2.1', '10.0.0.2'), '192.0.2.1');
      assert.equal(addressOf('10.0.0.9', '192.0.2.1'), '192.0.2.1');
      assert.equal(addressOf('2001:db8::1'), '2001:db8::1');
      assert.equal(addressOf('::ffff:192.0.2.1', '::ffff:10.0.0.2'), '192.0.2.1');
      assert.equal(
        clientOf(headersOf('192.0.2.1'), { header, address: '::ffff:10.0.0.1' }).address,
        '192.0.2.1',
      );
    });

    test('what is not an address is never passed by', () => {
      for (const node of ['unknown', '_hidden', '192.0.2', '10.0.0.300', 'localhost', '']) {
        if (node === '' && header === 'forwarded') continue;
        assert.equal(addressOf('192.0.2.1', node), undefined, node);
        assert.equal(addressOf('192.0.2.1', node, '10.0.0.2'), undefined, node);
      }
    });

    test('without a readable header there is no client, and never the proxy', () => {
      const other =
        header === 'forwarded' ? { 'x-forwarded-for': '192.0.2.1' } : { forwarded: 'for=192.0.2.1' };
      for (const headers of [
        {},
        other,
        { 'x-real-ip': '192.0.2.1' },
        { [header]: '' },
        { [header]: ' , ' },
      ]) {
        assert.equal(clientOf(headers, { header }).address, undefined);
      }
      assert.equal(addressOf('10.0.0.2'), undefined);
      assert.equal(addressOf('10.0.0.3', 'fd00::1'), undefined);
    });

    test('the headers of the other kind say nothing', () => {
      const [mine, other] =
        header === 'forwarded'
          ? [
              { forwarded: 'for=192.0.2.1' },
              { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'evil', 'x-forwarded-for': '192.0.2.9' },
            ]
          : [{ 'x-forwarded-for': '192.0.2.1' }, { forwarded: 'for=192.0.2.9;proto=https;host=evil' }];
      const client = { address: '192.0.2.1', secure: false, host: 'mirror:5000', viaProxy: true };
      assert.deepEqual(clientOf({ ...mine, ...other }, { header, encrypted: true }), client);
    });

    test('whatever a client puts before them, it gets nothing but its own address, or none', () => {
      const text = fc.string({
        unit: fc.constantFrom('"', '\\', ',', ';', '=', ' ', '[', ']', ':', '1', '.', 'f', 'o', 'r', '_'),
        maxLength: 30,
      });
      const lie = fc.oneof(
        text,
        fc.constantFrom(
          '192.0.2.99',
          'for=192.0.2.99',
          'for="192.0.2.99',
          'for="[fd00::1]',
          'for=192.0.2.99;proto=https',
          'for=x;by="',
          'for="a\\',
        ),
      );
      const mine = fc.constantFrom('192.0.2.1', '"192.0.2.1"', '"[2001:db8::1]:80"');
      fc.assert(
        fc.property(fc.array(lie, { minLength: 1, maxLength: 3 }), mine, (lies, node) => {
          const own = header === 'forwarded' ? `for=${node};proto=http` : node.replace(/^"|"$/g, '');
          const client = clientOf({ [header]: [...lies, own].join(', ') }, { header });
          const isOwn = client.address === (node.includes('db8') ? '2001:db8::1' : '192.0.2.1');
          assert.ok(isOwn || (header === 'forwarded' && client.address === undefined), client.address);
          assert.equal(client.secure, false);
        }),
        { numRuns: 2000 },
      );
    });
  });
}

suite('X-Forwarded-For', () => {
  const addressOf = (value: string) => clientOf({ 'x-forwarded-for': value }).address;

  test('may have ports, and brackets', () => {
    assert.equal(addressOf('192.0.2.1:4711'), '192.0.2.1');
    assert.equal(addressOf('[2001:db8::1]:4711'), '2001:db8::1');
    assert.equal(addressOf('[2001:db8::1]'), '2001:db8::1');
    assert.equal(addressOf('192.0.2.1:http'), undefined);
    assert.equal(addressOf('[192.0.2.1]'), undefined);
    assert.equal(addressOf('[[::1]]'), undefined);
  });

  test('goes with X-Forwarded-Proto and X-Forwarded-Host, of which the last value counts', () => {
    const headers = { 'x-forwarded-for': '192.0.2.1' };
    const of = (scheme?: string, host?: string) =>
      clientOf({
        ...headers,
        ...(scheme === undefined ? {} : { 'x-forwarded-proto': scheme }),
        ...(host === undefined ? {} : { 'x-forwarded-host': host }),
      });
    const expected = { address: '192.0.2.1', secure: true, host: 'mirror.corp.example', viaProxy: true };
    assert.deepEqual(of('https', 'mirror.corp.example'), expected);
    assert.deepEqual(of('HTTPS', 'evil, mirror.corp.example'), expected);
    assert.equal(of('https, http').secure, false);
    assert.equal(of('http').secure, false);
    assert.equal(of('httpsx').secure, false);
    assert.equal(of().secure, false, 'the connection of the proxy says nothing of that of the client');
    assert.equal(of('https').host, 'mirror:5000');
    for (const host of ['a b', 'user@host', 'host/path', '"x', 'host:port', 'a\\b', '']) {
      assert.equal(of('https', host).host, undefined, host);
    }
    assert.equal(of('https', '[2001:db8::1]:5000').host, '[2001:db8::1]:5000');
    assert.equal(of('https', 'my_mirror:5000').host, 'my_mirror:5000');
  });
});

suite('Forwarded', () => {
  test('is read as RFC 7239 has it: quoted, with ports, in any order and case', () => {
    for (const [value, address] of [
      ['for="192.0.2.1:4711"', '192.0.2.1'],
      ['For="[2001:db8:cafe::17]:4711"', '2001:db8:cafe::17'],
      ['for="[2001:db8:cafe::17]"', '2001:db8:cafe::17'],
      ['for="192.0.2.1:_port"', '192.0.2.1'],
      ['for="19\\2.0.2.1"', '192.0.2.1'],
      ['by=203.0.113.43;for=192.0.2.1 ; proto=http', '192.0.2.1'],
      ['for=192.0.2.9, for=192.0.2.1,for=10.0.0.2', '192.0.2.1'],
      ['for="2001:db8::1"', undefined],
      ['for="[192.0.2.1]"', undefined],
      ['for=_gazonk', undefined],
      ['for=unknown', undefined],
      ['for=""', undefined],
      ['proto=https', undefined],
      ['for=192.0.2.1;;', undefined],
      ['for="192.0.2.1', undefined],
      ['for 192.0.2.1', undefined],
    ] as const) {
      assert.equal(forwarded(value).address, address, value);
    }
  });

  test('says scheme and host in the element that says the client', () => {
    const value =
      'for=192.0.2.9;proto=http;host=evil, for=192.0.2.1;proto=HTTPS;host="mirror:443", for=10.0.0.2;proto=http;host=inner';
    assert.deepEqual(forwarded(value), {
      address: '192.0.2.1',
      secure: true,
      host: 'mirror:443',
      viaProxy: true,
    });
    const silent = 'for=192.0.2.9;proto=https;host=evil, for=192.0.2.1, for=10.0.0.2;proto=https;host=inner';
    assert.deepEqual(forwarded(silent), {
      address: '192.0.2.1',
      secure: false,
      host: 'mirror:5000',
      viaProxy: true,
    });
    assert.equal(forwarded('for=_hidden;proto=https').secure, true);
    assert.equal(forwarded('for=192.0.2.1;proto=https;host="a b"').host, undefined);
  });

  test('survives a round trip: every address that a proxy writes is read', () => {
    const port = fc.constantFrom('', ':1', ':65535', ':_x');
    const node = fc.oneof(
      fc.tuple(fc.ipV4(), port).map(([ip, end]) => ({ ip, text: end === '' ? ip : `"${ip}${end}"` })),
      fc.tuple(fc.ipV6(), port).map(([ip, end]) => ({ ip, text: `"[${ip}]${end}"` })),
    );
    fc.assert(
      fc.property(node, fc.constantFrom('', ';proto=https', ';by="[fd00::1]"'), ({ ip, text }, rest) => {
        const { address } = new TrustedProxies([PROXY], 'forwarded').clientOf({
          address: PROXY,
          encrypted: false,
          host: undefined,
          headers: { forwarded: `for=${text}${rest}` },
        });
        assert.equal(address, clientOf({}, { address: ip, proxies: [] }).address);
        assert.ok(address !== undefined || ip === PROXY);
      }),
    );
  });
});

test('headers that came on several lines are one list, and those of the client stand left', async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => server.close());
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  cleanUp(t, () => socket.destroy());
  const received = once(server, 'request') as Promise<[IncomingMessage]>;
  const lines = [
    'GET / HTTP/1.1',
    'Host: m',
    'X-Forwarded-For: 192.0.2.9',
    'X-Forwarded-For: 192.0.2.1',
    'Forwarded: for=192.0.2.9;proto=https',
    'Forwarded: for=192.0.2.1;proto=http',
    'X-Forwarded-Proto: https',
    'X-Forwarded-Proto: http',
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  const [{ headers }] = await received;
  for (const header of ['x-forwarded-for', 'forwarded'] as const) {
    const { address, secure } = clientOf(headers, { header });
    assert.deepEqual([address, secure], ['192.0.2.1', false]);
  }
});

test('a request with Origin, or that a browser sends for another site, is from another site', () => {
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: '' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'none, cross-site' },
    { origin: 'https://mirror', 'sec-fetch-site': 'same-origin' },
  ]) {
    assert.equal(isFromAnotherSite(headers), true, JSON.stringify(headers));
  }
  for (const headers of [
    {},
    { 'sec-fetch-site': 'none' },
    { 'sec-fetch-site': 'same-origin' },
    { referer: 'x' },
  ]) {
    assert.equal(isFromAnotherSite(headers), false, JSON.stringify(headers));
  }
});
