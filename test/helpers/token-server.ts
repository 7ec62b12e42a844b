/** A token server for tests: checks credentials, hands out tokens that end, and remembers who asked for what. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface TokenServerOptions {
  service: string;
  /** Required of whoever asks; anonymous otherwise. */
  credentials?: { username: string; password: string };
  /** Fields of the answer besides the token; `{ expires_in: 300 }` by default. */
  answer?: Record<string, unknown>;
  /** The name of the field that holds the token: `token`, `access_token`. */
  field?: string;
  /** The refresh token that it takes by POST. */
  refreshToken?: string;
  /** The one scope that it knows; else that of the repository. */
  scope?: string;
  /** What it answers to a POST if it does not do OAuth2. */
  postStatus?: number;
  /** What its tokens begin with; `token` by default. */
  prefix?: string;
}

export interface TokenRequest {
  service: string | null;
  scope: string | null;
  authorization: string | undefined;
  /** Of a POST. */
  form?: Record<string, string>;
}

export class TokenServer {
  readonly requests: TokenRequest[] = [];
  /** What to answer instead of a token. */
  refusal: { status: number; body: string; headers?: Record<string, string> } | undefined;
  readonly #options: TokenServerOptions;
  readonly #scopeByToken = new Map<string, string>();
  #server: Server | undefined;
  /** Kept after the end: a registry goes on naming a token server that is down. */
  #realm: string | undefined;
  #issued = 0;

  constructor(options: TokenServerOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#server = createServer((request, response) => void this.#answer(request, response));
    const server = this.#server;
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.#realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = new URLSearchParams(Buffer.concat(chunks).toString());
    const url = new URL(request.url ?? '/', 'http://tokens');
    const { authorization } = request.headers;
    const query = request.method === 'POST' ? body : url.searchParams;
    const scope = query.get('scope');
    const seen: TokenRequest = { service: query.get('service'), scope, authorization };
    if (request.method === 'POST') seen.form = Object.fromEntries(body);
    this.requests.push(seen);
    if (this.refusal !== undefined) {
      response.writeHead(this.refusal.status, this.refusal.headers).end(this.refusal.body);
      return;
    }
    const { credentials, refreshToken, postStatus } = this.#options;
    if (request.method === 'POST' && postStatus !== undefined) {
      response.writeHead(postStatus).end();
      return;
    }
    const isKnown =
      request.method === 'POST'
        ? body.get('refresh_token') === refreshToken
        : credentials === undefined || authorization === basic(credentials);
    if (!isKnown) {
      response
        .writeHead(401, { 'content-type': 'application/json' })
        .end('{"errors":[{"code":"UNAUTHORIZED"}]}');
      return;
    }
    this.#issued += 1;
    const { field = 'token', prefix = 'token', answer = { expires_in: 300 } } = this.#options;
    const token = `${prefix}-${this.#issued}`;
    this.#scopeByToken.set(token, scope ?? '');
    response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify({ [field]: token, ...answer }));
  }

  get realm(): string {
    if (this.#realm === undefined) throw new Error('the token server has not been started');
    return this.#realm;
  }

  /** From now on the registry takes none of the tokens issued so far. */
  expireAll(): void {
    this.#scopeByToken.clear();
  }

  /** @returns what to answer a request that may not pass */
  challengeFor(authorization: string | undefined, repository: string): string | undefined {
    const scope = this.#options.scope ?? `repository:${repository}:pull`;
    const token = authorization?.replace(/^Bearer /, '') ?? '';
    if (this.#scopeByToken.get(token) === scope) return undefined;
    return `Bearer realm="${this.realm}",service="${this.#options.service}",scope="${scope}"`;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    await new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  }
}

function basic({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
