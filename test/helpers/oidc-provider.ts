/** A real OpenID provider on loopback, which gives a JWT for client credentials. It works by the time of this machine. */
import { generateKeyPairSync } from 'node:crypto';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { Provider } from 'oidc-provider';
import { request } from 'undici';
import { cleanUp } from './cleanup.ts';

const CLIENT = { client_id: 'ci', client_secret: 'the secret of the client of the provider' };
/** Of its JWTs, in seconds. */
export const JWT_LIFETIME = 300;

/** For JWTs nothing need be stored; without an adapter the provider warns at every start. */
class KeepsNothing {
  readonly upsert = async () => undefined;
  readonly find = async () => undefined;
  readonly findByUserCode = async () => undefined;
  readonly findByUid = async () => undefined;
  readonly consume = async () => undefined;
  readonly destroy = async () => undefined;
  readonly revokeByGrantId = async () => undefined;
}

export class OidcProvider {
  /** Paths that were asked for, but for those that a test itself asks for. */
  readonly requests: string[] = [];
  /** Of the JWTs. */
  audience = 'millpond';
  #server: Server;
  #port = 0;
  #answer: (...exchange: Parameters<RequestListener>) => unknown = () => undefined;

  private constructor() {
    this.#server = this.#create();
  }

  static async start(t: TestContext): Promise<OidcProvider> {
    const provider = new OidcProvider();
    await provider.goUp();
    provider.rotate('key-1');
    cleanUp(t, () => provider.goDown());
    return provider;
  }

  get issuer(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Signs with a new key from now on, and publishes no other. */
  rotate(kid: string): void {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const jwk = { ...privateKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' };
    const provider = new Provider(this.issuer, {
      clients: [
        {
          ...CLIENT,
          grant_types: ['client_credentials'],
          redirect_uris: [],
          response_types: [],
          token_endpoint_auth_method: 'client_secret_post',
        },
      ],
      adapter: KeepsNothing,
      ttl: { ClientCredentials: JWT_LIFETIME },
      jwks: { keys: [jwk] },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => 'urn:millpond:mirror',
          getResourceServerInfo: () => ({
            scope: '',
            audience: this.audience,
            accessTokenFormat: 'jwt',
            accessTokenTTL: JWT_LIFETIME,
            jwt: { sign: { alg: 'RS256', kid } },
          }),
        },
      },
    });
    this.#answer = provider.callback();
  }

  /** What a job of a CI gets: a JWT whose subject is the client's name, `ci`. */
  async jwt(): Promise<string> {
    const { statusCode, body } = await request(`${this.issuer}/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ grant_type: 'client_credentials', ...CLIENT }).toString(),
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`the provider answered ${statusCode}: ${text}`);
    return (JSON.parse(text) as { access_token: string }).access_token;
  }

  async goUp(): Promise<void> {
    this.#server = this.#create();
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  async goDown(): Promise<void> {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }

  #create(): Server {
    return createServer((request, response) => {
      if (request.url !== '/token') this.requests.push(request.url ?? '');
      void this.#answer(request, response);
    });
  }
}
