/**
 * Asks token servers for tokens.
 *
 * Source: the token authentication specifications of distribution (GET, and OAuth2 with POST), and what registries make
 * of them: they differ in every field.
 */
import type { Clock } from '../../clock.ts';
import type { RequestContext } from '../../request-context.ts';
import { UpstreamError } from '../errors.ts';
import { readBody, replyError } from '../network/replies.ts';
import { discard, type Reply, type Transport } from '../network/transport.ts';
import type { Challenge } from './challenge.ts';
import { basicAuthorization, type Credentials } from './credentials.ts';
import { isRealmAllowed } from './realm.ts';

const TOKEN_BODY_MAX_BYTES = 1024 * 1024;
/** "A token should never be returned with less than 60 seconds to live". Some servers still say 0, or nothing. */
const MIN_LIFETIME_SECONDS = 60;
const MAX_LIFETIME_SECONDS = 3600;

/** The OAuth2 specification requires one. */
const CLIENT_ID = 'millpond';
/**
 * What token servers that only support GET answer to a POST: 404 by the specification, JFrog 401, Azure 400
 * (containerd, authorizer.go).
 */
const NO_OAUTH2: readonly number[] = [400, 401, 404, 405];

/** What a bearer challenge demands. */
export interface TokenDemand {
  /** The token server. */
  realm: URL;
  service: string | undefined;
  /** Absent: a token that only proves who asks. */
  scope: string | undefined;
}

/**
 * What a bearer challenge demands.
 *
 * @param challenger the URL that sent the challenge
 * @throws {UpstreamError} the realm is not a URL
 */
export function tokenDemand({ parameters }: Challenge, challenger: URL, upstream: string): TokenDemand {
  const realm = parameters.get('realm') ?? '';
  if (!URL.canParse(realm, challenger.href)) {
    const what = 'its challenge (WWW-Authenticate) has a realm that is not a URL';
    throw new UpstreamError('invalid-response', upstream, what);
  }
  // Some registries send no scope. nvcr.io sends scope="" on its ping.
  const scope = parameters.get('scope') || undefined;
  return { realm: new URL(realm, challenger), service: parameters.get('service'), scope };
}

export interface Token {
  authorization: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

export interface TokenClientSettings {
  name: string;
  /** Base URL of the registry. */
  url: string;
  /** Hosts outside the registry's domain that may get its credentials. */
  realmHosts: readonly string[];
}

export class TokenClient {
  readonly #settings: TokenClientSettings;
  readonly #transport: Transport;
  readonly #clock: Clock;

  constructor(settings: TokenClientSettings, transport: Transport, clock: Clock) {
    this.#settings = settings;
    this.#transport = transport;
    this.#clock = clock;
  }

  /**
   * Fetches a token.
   *
   * @param challenger the URL whose challenge made the demand
   * @throws {UpstreamError} also if this token server must not be asked
   */
  async fetch(
    context: RequestContext,
    demand: TokenDemand,
    challenger: URL,
    credentials: Credentials | undefined,
  ): Promise<Token> {
    const { name } = this.#settings;
    this.#assertAllowed(demand.realm, challenger);
    const refreshToken = await this.#refreshToken(context, credentials);
    const reply =
      (refreshToken === undefined ? undefined : await this.#post(context, demand, refreshToken)) ??
      (await this.#get(context, demand, credentials));
    if (reply.status === 404 || reply.status === 410) {
      await discard(reply);
      // Not `not-found`: the token server is missing, not the content. The mirror must not forget a cached tag.
      const what = `its token server answered ${reply.status}`;
      throw new UpstreamError('invalid-response', name, what, { status: reply.status });
    }
    if (reply.status !== 200) throw await replyError(reply, name, 'its token server', this.#clock.now());
    return this.#parse(await readBody(reply, TOKEN_BODY_MAX_BYTES, name));
  }

  #assertAllowed(realm: URL, challenger: URL): void {
    const { name, realmHosts } = this.#settings;
    if (!isRealmAllowed(realm, challenger, realmHosts)) {
      const what = `its token server ${realm.host} is on a foreign host; if you trust it, add it to realmHosts`;
      throw new UpstreamError('invalid-response', name, what);
    }
    this.#transport.assertPublic(realm);
  }

  async #refreshToken(
    context: RequestContext,
    credentials: Credentials | undefined,
  ): Promise<string | undefined> {
    if (credentials === undefined) return undefined;
    if ('identityToken' in credentials) return credentials.identityToken;
    return 'entraToken' in credentials
      ? this.#exchangeEntraToken(context, credentials.entraToken)
      : undefined;
  }

  /** Azure/acr, docs/AAD-OAuth.md: "Calling POST /oauth2/exchange to get an ACR refresh token". */
  async #exchangeEntraToken(context: RequestContext, entraToken: string): Promise<string> {
    const { name, url } = this.#settings;
    const form = { grant_type: 'access_token', service: new URL(url).host, access_token: entraToken };
    const reply = await this.#sendForm(context, new URL(`${url}/oauth2/exchange`), form);
    if (reply.status !== 200) throw await replyError(reply, name, 'its /oauth2/exchange', this.#clock.now());
    const token = stringField(await readBody(reply, TOKEN_BODY_MAX_BYTES, name), 'refresh_token');
    if (token === undefined) {
      throw new UpstreamError('invalid-response', name, 'its /oauth2/exchange sent no refresh token');
    }
    return token;
  }

  #get(
    context: RequestContext,
    { realm, service, scope }: TokenDemand,
    credentials: Credentials | undefined,
  ): Promise<Reply> {
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set('service', service);
    if (scope !== undefined) url.searchParams.set('scope', scope);
    const authorization = credentials === undefined ? {} : { Authorization: basicAuthorization(credentials) };
    const headers = { Accept: 'application/json', ...authorization };
    return this.#transport.send({ context, method: 'GET', url, headers, kind: 'token' });
  }

  /** @returns undefined if the token server does not support OAuth2. The caller sends a GET then. */
  async #post(
    context: RequestContext,
    { realm, service, scope }: TokenDemand,
    refreshToken: string,
  ): Promise<Reply | undefined> {
    const reply = await this.#sendForm(context, realm, {
      grant_type: 'refresh_token',
      refresh_token: refreshToken,
      client_id: CLIENT_ID,
      ...(scope === undefined ? {} : { scope }),
      ...(service === undefined ? {} : { service }),
    });
    if (!NO_OAUTH2.includes(reply.status)) return reply;
    await discard(reply);
    return undefined;
  }

  #sendForm(context: RequestContext, url: URL, form: Record<string, string>): Promise<Reply> {
    const headers = { Accept: 'application/json', 'Content-Type': 'application/x-www-form-urlencoded' };
    const body = new URLSearchParams(form).toString();
    return this.#transport.send({ context, method: 'POST', url, headers, kind: 'token', body });
  }

  #parse(body: Buffer): Token {
    const token = stringField(body, 'token') ?? stringField(body, 'access_token');
    // Only visible ASCII: a token with a line break would add a header to our requests.
    if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) {
      throw new UpstreamError(
        'invalid-response',
        this.#settings.name,
        'its token server sent no usable token',
      );
    }
    const fields = jsonObject(body);
    const seconds = typeof fields['expires_in'] === 'number' ? fields['expires_in'] : MIN_LIFETIME_SECONDS;
    const lifetime = Math.min(Math.max(seconds, MIN_LIFETIME_SECONDS), MAX_LIFETIME_SECONDS);
    // Count from now instead of issued_at, because the clocks of the two machines differ.
    return { authorization: `Bearer ${token}`, expiresAt: this.#clock.now() + lifetime * 1000 };
  }
}

function jsonObject(body: Buffer): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(body.toString('utf8'));
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function stringField(body: Buffer, name: string): string | undefined {
  const value = jsonObject(body)[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
