import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { suite, type TestContext, test } from 'node:test';
import {
  type ConnectionOptions,
  connect,
  createServer,
  type SecureVersion,
  type Server,
  type TLSSocket,
} from 'node:tls';
import {
  ClientTrust,
  ClientTrustError,
  type PeerSocket,
} from '../../../src/access/certificates/client-trust.ts';
import { type Certificate, selfSigned } from '../../helpers/certificates.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { TestAuthority } from '../../helpers/client-certificates.ts';

const HOUR = 60 * 60 * 1000;
const DAY = 24 * HOUR;
const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const satisfies readonly SecureVersion[];

/** A server that asks for certificates as the mirror does. */
class Listener {
  readonly #certificate = selfSigned('localhost');
  readonly #server: Server;

  private constructor({ tls }: ClientTrust) {
    this.#server = createServer({ ...this.#settings(tls), requestCert: true, rejectUnauthorized: false });
  }

  static async start(t: TestContext, trust: ClientTrust): Promise<Listener> {
    const listener = new Listener(trust);
    await new Promise<void>((resolve) => listener.#server.listen(0, '127.0.0.1', resolve));
    cleanUp(t, () => listener.#server.close());
    return listener;
  }

  reload({ tls }: ClientTrust): void {
    this.#server.setSecureContext(this.#settings(tls));
  }

  /** The server's end of a new connection, and the session with which the client can resume it. */
  async accept(
    t: TestContext,
    client: Certificate | undefined,
    { version = 'TLSv1.3', session }: { version?: SecureVersion; session?: Promise<Buffer> } = {},
  ): Promise<{ socket: TLSSocket; session: Promise<Buffer> }> {
    const { port } = this.#server.address() as AddressInfo;
    const accepted = once(this.#server, 'secureConnection') as Promise<[TLSSocket]>;
    const options: ConnectionOptions = { ...client, minVersion: version, maxVersion: version };
    const resumed = session === undefined ? {} : { session: await session };
    const host = { host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false };
    const connection = connect({ port, ...host, ...options, ...resumed });
    const newSession = new Promise<Buffer>((resolve) => connection.once('session', resolve));
    const [socket] = await accepted;
    cleanUp(t, () => connection.destroy());
    cleanUp(t, () => socket.destroy());
    connection.resume();
    socket.write('tickets come with the first bytes');
    return { socket, session: newSession };
  }

  #settings(tls: ClientTrust['tls']) {
    const { cert, key } = this.#certificate;
    return { cert, key, ca: [...tls.ca], ...(tls.crl === undefined ? {} : { crl: [...tls.crl] }) };
  }
}

/** What the mirror knows of a client that connects with `client`. */
async function identityFor(t: TestContext, trust: ClientTrust, client: Certificate | undefined) {
  const listener = await Listener.start(t, trust);
  const { socket } = await listener.accept(t, client);
  return { identity: trust.identityOf(socket, Date.now()), problem: trust.problemOf(socket, Date.now()) };
}

/** A client that sends more than its own certificate. */
function withChain(client: Certificate, ...authorities: Certificate[]): Certificate {
  return { cert: [client, ...authorities].map(({ cert }) => cert).join(''), key: client.key };
}

suite('the identity of a client certificate', () => {
  test('is made of the common name and of each alternative name that is a DNS name, a URI or a mail address', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const names = 'DNS:build-1.corp.example, URI:spiffe://corp/build-1, email:ci@corp.example, IP:10.0.0.1';
    const client = await authority.issue(t, {
      subject: '/CN=Bäcker 1',
      extensions: ['extendedKeyUsage = clientAuth, serverAuth', `subjectAltName = ${names}`],
    });
    assert.deepEqual(await identityFor(t, new ClientTrust(authority.cert), client), {
      identity: {
        kind: 'certificate',
        names: [
          'CN=Bäcker 1',
          'DNS:build-1.corp.example',
          'URI:spiffe://corp/build-1',
          'EMAIL:ci@corp.example',
        ],
      },
      problem: undefined,
    });
  });

  test('is not there for a client that sends no certificate', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const none = { identity: undefined, problem: undefined };
    assert.deepEqual(await identityFor(t, new ClientTrust(authority.cert), undefined), none);
  });

  test('needs no purpose in a certificate that names none', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const client = await authority.issue(t, { subject: '/CN=build-1', extensions: [] });
    const { identity } = await identityFor(t, new ClientTrust(authority.cert), client);
    assert.deepEqual(identity?.names, ['CN=build-1']);
  });

  test('comes through an intermediate authority, which clientCa holds besides the root', async (t) => {
    const root = await TestAuthority.root(t, 'root');
    const issuing = await root.intermediate(t, 'issuing');
    const client = await issuing.issue(t, { subject: '/CN=build-1' });
    const { identity } = await identityFor(t, new ClientTrust(`${issuing.cert}${root.cert}`), client);
    assert.deepEqual(identity?.names, ['CN=build-1']);
  });

  test('is not there when only the client brings the intermediate authority, and a message says so', async (t) => {
    const root = await TestAuthority.root(t, 'root');
    const issuing = await root.intermediate(t, 'issuing');
    const client = await issuing.issue(t, { subject: '/CN=build-1' });
    const { identity, problem } = await identityFor(
      t,
      new ClientTrust(root.cert),
      withChain(client, issuing),
    );
    assert.equal(identity, undefined);
    assert.match(problem ?? '', /clientCa does not hold its issuer and all authorities above/);
  });

  test('is not there when clientCa holds the intermediate authority without its root', async (t) => {
    const root = await TestAuthority.root(t, 'root');
    const issuing = await root.intermediate(t, 'issuing');
    const client = await issuing.issue(t, { subject: '/CN=build-1' });
    const { identity } = await identityFor(t, new ClientTrust(issuing.cert), client);
    assert.equal(identity, undefined);
  });
});

suite('no identity comes from a certificate', () => {
  const hostile: Record<
    string,
    { problem: RegExp; make: (t: TestContext, authority: TestAuthority) => Promise<Certificate> }
  > = {
    'that signs itself': {
      make: async () => selfSigned('build-1.corp.example'),
      problem: /DEPTH_ZERO_SELF_SIGNED_CERT/,
    },
    'of another authority of the same name': {
      make: async (t) => (await TestAuthority.root(t, 'ca')).issue(t, { subject: '/CN=build-1' }),
      problem: /it was not verified/,
    },
    'that another client has signed with its own': {
      make: async (t, authority) => {
        const options = { extensions: ['extendedKeyUsage = clientAuth'] };
        const client = await authority.intermediate(t, 'not-an-authority', options);
        return withChain(await client.issue(t, { subject: '/CN=build-1' }), client);
      },
      problem: /it was not verified/,
    },
    'that has expired': {
      make: (t, authority) =>
        authority.issue(t, {
          subject: '/CN=build-1',
          from: new Date(Date.now() - 2 * DAY),
          until: new Date(Date.now() - HOUR),
        }),
      problem: /CERT_HAS_EXPIRED/,
    },
    'that is not valid yet': {
      make: (t, authority) =>
        authority.issue(t, { subject: '/CN=build-1', from: new Date(Date.now() + HOUR) }),
      problem: /CERT_NOT_YET_VALID/,
    },
    'for servers only': {
      make: (t, authority) =>
        authority.issue(t, { subject: '/CN=build-1', extensions: ['extendedKeyUsage = serverAuth'] }),
      problem: /INVALID_PURPOSE/,
    },
    'with two common names': {
      make: (t, authority) => authority.issue(t, { subject: '/CN=build-1/CN=build-2' }),
      problem: /no name that can be used/,
    },
    'with two common names in one part of the subject': {
      make: (t, authority) => authority.issue(t, { subject: '/CN=build-1+CN=build-2' }),
      problem: /no name that can be used/,
    },
    'without a name': {
      make: (t, authority) => authority.issue(t, { subject: '/' }),
      problem: /no name that can be used/,
    },
    'whose name has a line break in it': {
      make: (t, authority) => authority.issue(t, { subject: '/CN=build-1\nCN=build-2' }),
      problem: /no name that can be used/,
    },
    'that has more names than can be read': {
      make: (t, authority) => {
        const names = Array.from({ length: 11_000 }, () => 'DNS:a').join(',');
        const extensions = ['extendedKeyUsage = clientAuth', `subjectAltName = ${names}`];
        return authority.issue(t, { subject: '/CN=build-1', extensions });
      },
      problem: /it is not understood/,
    },
  };
  for (const [what, { make, problem }] of Object.entries(hostile)) {
    test(what, async (t) => {
      const authority = await TestAuthority.root(t, 'ca');
      const found = await identityFor(t, new ClientTrust(authority.cert), await make(t, authority));
      assert.equal(found.identity, undefined);
      assert.match(found.problem ?? '', problem);
    });
  }

  for (const subject of [
    '/CN=evil\\/CN=build-1',
    '/CN=evil,CN=build-1',
    '/CN=evil, CN = build-1',
    '/CN=DNS:build-1',
    '/OU=build-1/CN=evil',
  ]) {
    test(`CN=build-1, when the subject is ${subject}`, async (t) => {
      const authority = await TestAuthority.root(t, 'ca');
      const client = await authority.issue(t, { subject });
      const { identity } = await identityFor(t, new ClientTrust(authority.cert), client);
      assert.equal(identity?.names.length, 1);
      assert.match(identity?.names[0] ?? '', /^CN=(evil|DNS:)/);
    });
  }

  test('when the alternative names look like others inside of one', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const extensions = [
      'extendedKeyUsage = clientAuth',
      // One URI with a comma, and a DNS name with a space.
      'subjectAltName = @names',
      '[names]',
      'URI.1 = "https://evil/,DNS:build-1"',
      'DNS.1 = "evil DNS:build-1"',
    ];
    const client = await authority.issue(t, { subject: '/', extensions });
    const { identity } = await identityFor(t, new ClientTrust(authority.cert), client);
    assert.deepEqual(identity?.names, ['URI:https://evil/,DNS:build-1']);
  });
});

suite('a revocation list', () => {
  test('takes away the identity of the certificates on it, and of no other', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const [stolen, other] = [
      await authority.issue(t, { subject: '/CN=stolen' }),
      await authority.issue(t, { subject: '/CN=other' }),
    ];
    await authority.revoke(stolen);
    const trust = new ClientTrust(authority.cert, await authority.revocationList());
    assert.equal((await identityFor(t, trust, stolen)).identity, undefined);
    assert.deepEqual((await identityFor(t, trust, other)).identity?.names, ['CN=other']);
  });

  test('is needed from each authority of the chain, and each is looked at', async (t) => {
    const root = await TestAuthority.root(t, 'root');
    const issuing = await root.intermediate(t, 'issuing');
    const client = await issuing.issue(t, { subject: '/CN=build-1' });
    const ca = `${root.cert}${issuing.cert}`;
    const [ofRoot, ofIssuing] = [await root.revocationList(), await issuing.revocationList()];
    const listener = await Listener.start(t, new ClientTrust(ca, `${ofRoot}${ofIssuing}`));
    const { socket } = await listener.accept(t, client);
    const identityWith = (crl: string) => new ClientTrust(ca, crl).identityOf(socket, Date.now());

    assert.deepEqual(identityWith(`${ofRoot}${ofIssuing}`)?.names, ['CN=build-1']);
    assert.equal(identityWith(ofRoot), undefined);
    assert.equal(identityWith(ofIssuing), undefined);
    await root.revoke(issuing);
    assert.equal(identityWith(`${await root.revocationList()}${ofIssuing}`), undefined);
    await issuing.revoke(client);
    assert.equal(identityWith(`${ofRoot}${await issuing.revocationList()}`), undefined);
  });

  test('is refused with a reason where it cannot be used', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const list = await authority.revocationList();
    const stranger = await (await TestAuthority.root(t, 'ca')).revocationList();
    const partial = await authority.revocationList(24, [
      'issuingDistributionPoint = critical, @point',
      '[point]',
      'onlyuser = TRUE',
    ]);
    const refusals: [crl: string, message: RegExp][] = [
      ['', /holds no revocation list in PEM/],
      [authority.cert, /holds no revocation list in PEM/],
      [stranger, /list 1 is not signed by any authority in clientCa/],
      [`${list}${stranger}`, /list 2 is not signed by any authority in clientCa/],
      [partial, /list 1 is not understood: it has the critical extension 2\.5\.29\.28/],
      [`${list}${await authority.revocationList()}`, /holds several lists of "CN=ca": keep the newest/],
      // The signature stands last.
      [list.replace(/.{8}(?=.{4}\n---)/, 'AAAAAAAA'), /list 1 is not signed by any authority/],
      [list.replace(/^(.{30}).*$/m, '$1'), /list 1 is not understood/],
    ];
    for (const [crl, message] of refusals) {
      assert.throws(
        () => new ClientTrust(authority.cert, crl),
        (error) =>
          error instanceof ClientTrustError && error.setting === 'clientCrl' && message.test(error.message),
        String(message),
      );
    }
  });

  test('may be as long as that of a large organisation', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    await authority.revokeMany(5000);
    assert.ok(new ClientTrust(authority.cert, await authority.revocationList()));
  });
});

suite('clientCa is refused with a reason', () => {
  test('where it holds no certificate, a broken one, or one that is not of an authority', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const client = await authority.issue(t, { subject: '/CN=build-1' });
    const refusals: [ca: string, message: RegExp][] = [
      ['', /holds no certificate in PEM/],
      [authority.cert.replace(/^(.{30}).*$/m, '$1'), /holds a certificate that cannot be read/],
      [`${authority.cert}${client.cert}`, /holds "CN=build-1", which is not an authority/],
    ];
    for (const [ca, message] of refusals) {
      assert.throws(
        () => new ClientTrust(ca),
        (error) =>
          error instanceof ClientTrustError && error.setting === 'clientCa' && message.test(error.message),
        String(message),
      );
    }
  });
});

suite('on a kept connection, each request asks again', () => {
  test('whether the certificate and its authorities are valid at that time', async (t) => {
    const now = Date.now();
    const root = await TestAuthority.root(t, 'root', { until: new Date(now + 3 * DAY) });
    const issuing = await root.intermediate(t, 'issuing', { until: new Date(now + 2 * HOUR) });
    const [long, short] = [
      await issuing.issue(t, { subject: '/CN=long', until: new Date(now + 3 * HOUR) }),
      await issuing.issue(t, { subject: '/CN=short', until: new Date(now + HOUR) }),
    ];
    const trust = new ClientTrust(`${root.cert}${issuing.cert}`);
    const listener = await Listener.start(t, trust);
    const [ofLong, ofShort] = [await listener.accept(t, long), await listener.accept(t, short)];
    const names = (socket: PeerSocket, ms: number) => trust.identityOf(socket, now + ms)?.names;

    assert.deepEqual(names(ofShort.socket, HOUR - 2000), ['CN=short']);
    assert.equal(names(ofShort.socket, HOUR + 1000), undefined);
    assert.match(trust.problemOf(ofShort.socket, now + HOUR + 1000) ?? '', /not valid at this time/);
    assert.deepEqual(names(ofLong.socket, 2 * HOUR - 2000), ['CN=long']);
    assert.equal(names(ofLong.socket, 2 * HOUR + 1000), undefined, 'its authority has expired');
    assert.equal(names(ofLong.socket, -HOUR), undefined, 'the clock was set back');
    assert.deepEqual(names(ofLong.socket, 0), ['CN=long'], 'and forward again');
  });

  test('whether the revocation list is still in force', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const client = await authority.issue(t, { subject: '/CN=build-1' });
    const trust = new ClientTrust(authority.cert, await authority.revocationList(2));
    const { socket } = await (await Listener.start(t, trust)).accept(t, client);
    assert.ok(trust.identityOf(socket, Date.now() + HOUR));
    assert.equal(trust.identityOf(socket, Date.now() + 3 * HOUR), undefined);
  });

  test('whether a new list revokes it', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const client = await authority.issue(t, { subject: '/CN=build-1' });
    const before = new ClientTrust(authority.cert, await authority.revocationList());
    const { socket } = await (await Listener.start(t, before)).accept(t, client);
    assert.ok(before.identityOf(socket, Date.now()));
    await authority.revoke(client);
    const after = new ClientTrust(authority.cert, await authority.revocationList());
    assert.equal(after.identityOf(socket, Date.now()), undefined);
    assert.match(after.problemOf(socket, Date.now()) ?? '', /revoked/);
  });

  test('whether clientCa still holds its authority: a new one of the same name does not count', async (t) => {
    const [first, second] = [await TestAuthority.root(t, 'ca'), await TestAuthority.root(t, 'ca')];
    const client = await first.issue(t, { subject: '/CN=build-1' });
    const both = new ClientTrust(`${second.cert}${first.cert}`);
    const { socket } = await (await Listener.start(t, both)).accept(t, client);
    assert.ok(both.identityOf(socket, Date.now()));
    assert.equal(new ClientTrust(second.cert).identityOf(socket, Date.now()), undefined);
  });

  test('and authorities that certify each other do not lead in a circle', async (t) => {
    const [a, b] = [await TestAuthority.root(t, 'a'), await TestAuthority.root(t, 'b')];
    const crossed = await a.certify(t, b);
    const back = await b.certify(t, a);
    const client = await b.issue(t, { subject: '/CN=build-1' });
    const { socket } = await (await Listener.start(t, new ClientTrust(b.cert))).accept(t, client);
    const circle = `${crossed}${back}`;
    assert.ok(new ClientTrust(`${circle}${a.cert}${b.cert}`).identityOf(socket, Date.now()));
    assert.ok(new ClientTrust(`${circle}${a.cert}`).identityOf(socket, Date.now()));
    assert.equal(new ClientTrust(circle).identityOf(socket, Date.now()), undefined);
  });
});

suite('a resumed TLS session', () => {
  for (const version of VERSIONS) {
    test(`${version}: has the identity of its certificate while that is still good, and no longer`, async (t) => {
      const authority = await TestAuthority.root(t, 'ca');
      const client = await authority.issue(t, { subject: '/CN=build-1' });
      const trust = new ClientTrust(authority.cert, await authority.revocationList());
      const listener = await Listener.start(t, trust);
      const { session } = await listener.accept(t, client, { version });
      const { socket } = await listener.accept(t, client, { version, session });
      assert.equal(socket.isSessionReused(), true);
      assert.deepEqual(trust.identityOf(socket, Date.now())?.names, ['CN=build-1']);
      assert.equal(trust.identityOf(socket, Date.now() + 2 * DAY), undefined);

      await authority.revoke(client);
      const revoked = new ClientTrust(authority.cert, await authority.revocationList());
      // TLS itself still calls it authorized, by the result of the first handshake.
      const again = await listener.accept(t, client, { version, session });
      assert.equal(again.socket.isSessionReused(), true);
      assert.equal(again.socket.authorized, true);
      assert.equal(revoked.identityOf(again.socket, Date.now()), undefined);
    });

    test(`${version}: is not taken over when the files have changed`, async (t) => {
      const [first, second] = [await TestAuthority.root(t, 'ca'), await TestAuthority.root(t, 'other')];
      const client = await first.issue(t, { subject: '/CN=build-1' });
      const listener = await Listener.start(t, new ClientTrust(first.cert));
      const { session } = await listener.accept(t, client, { version });
      const trust = new ClientTrust(second.cert);
      listener.reload(trust);
      const { socket } = await listener.accept(t, client, { version, session });
      assert.equal(trust.identityOf(socket, Date.now()), undefined);
    });

    test(`${version}: without a certificate is nobody, and one with a bad certificate has no identity`, async (t) => {
      const authority = await TestAuthority.root(t, 'ca');
      const trust = new ClientTrust(authority.cert);
      const listener = await Listener.start(t, trust);
      for (const client of [undefined, selfSigned('build-1')]) {
        const { session } = await listener.accept(t, client, { version });
        const { socket } = await listener.accept(t, client, { version, session });
        assert.equal(socket.isSessionReused(), true);
        assert.equal(trust.identityOf(socket, Date.now()), undefined);
      }
    });
  }

  test('that TLS calls authorized although it has no certificate, as Node did before 24.21, is nobody', async (t) => {
    const authority = await TestAuthority.root(t, 'ca');
    const socket = {
      authorized: true,
      authorizationError: undefined,
      getPeerX509Certificate: () => undefined,
    };
    assert.equal(
      new ClientTrust(authority.cert).identityOf(socket as unknown as PeerSocket, Date.now()),
      undefined,
    );
  });
});
