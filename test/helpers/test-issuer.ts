/** An issuer of JWTs that signs whatever a test wants, publishes whatever keys, and remembers who asked. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { type JWK, type JWTHeaderParameters, SignJWT } from 'jose';
import { Agent, request } from 'undici';
import { Issuer, type IssuerContext, type IssuerSettings } from '../../src/access/oidc/issuer.ts';
import type { SendRequest } from '../../src/access/oidc/issuer-http.ts';
import { cleanUp } from './cleanup.ts';
import { FakeClock } from './fake-clock.ts';
import { silentLogger } from './test-transport.ts';

/** A key pair whose name is known. */
export class TestKey {
  readonly kid: string;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;

  constructor(kid: string) {
    this.kid = kid;
    ({ privateKey: this.privateKey, publicKey: this.publicKey } = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
    }));
  }

  get jwk(): JWK {
    return { ...this.publicKey.export({ format: 'jwk' }), kid: this.kid, alg: 'ES256', use: 'sig' };
  }

  sign(claims: Record<string, unknown>, header: Partial<JWTHeaderParameters> = {}): Promise<string> {
    return new SignJWT(claims)
      .setProtectedHeader({ alg: 'ES256', kid: this.kid, ...header })
      .sign(this.privateKey);
  }
}

export interface SeenRequest {
  path: string;
  authorization: string | undefined;
}

export class TestIssuer {
  readonly requests: SeenRequest[] = [];
  readonly url: string;
  key = new TestKey('key-1');
  /** What it publishes; by default its key. */
  published: JWK[] | undefined;
  /** Answers instead of it; true: it has. */
  script: ((path: string, response: ServerResponse) => boolean) | undefined;

  private constructor(url: string) {
    this.url = url;
  }

  static async start(t: TestContext): Promise<TestIssuer> {
    const server = createServer((request, response) => {
      const path = request.url ?? '';
      issuer.requests.push({ path, authorization: request.headers.authorization });
      if (issuer.script?.(path, response) === true) return;
      const document = issuer.#document(path);
      response.writeHead(document === undefined ? 404 : 200).end(JSON.stringify(document));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const issuer = new TestIssuer(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    cleanUp(t, async () => {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
    });
    return issuer;
  }

  #document(path: string): unknown {
    if (path === '/.well-known/openid-configuration')
      return { issuer: this.url, jwks_uri: `${this.url}/keys` };
    return path === '/keys' ? { keys: this.published ?? [this.key.jwk] } : undefined;
  }

  /** A JWT as it should be, for the audience `millpond`, that lives five minutes from `now`, in milliseconds. */
  claims(now: number, changes: Record<string, unknown> = {}): Record<string, unknown> {
    const seconds = Math.floor(now / 1000);
    return { iss: this.url, aud: 'millpond', sub: 'job', iat: seconds, exp: seconds + 300, ...changes };
  }
}

/** Sends requests as undici does, without a proxy. */
export function sendDirectly(t: TestContext): SendRequest {
  const dispatcher = new Agent();
  cleanUp(t, () => dispatcher.destroy());
  return (url, options) => request(url, { ...options, dispatcher });
}

/** An {@link Issuer} with the defaults of the configuration. */
export function configuredIssuer(
  t: TestContext,
  settings: Partial<IssuerSettings> & { issuer: string },
  context: Partial<IssuerContext> = {},
): Issuer {
  return new Issuer(
    {
      name: 'ci',
      audience: 'millpond',
      algorithms: ['RS256', 'ES256'],
      insecure: false,
      staleKeys: 24 * 3_600_000,
      session: 3_600_000,
      claims: () => [],
      ...settings,
    },
    {
      send: sendDirectly(t),
      sealed: () => false,
      clock: new FakeClock(),
      logger: silentLogger(),
      ...context,
    },
  );
}
