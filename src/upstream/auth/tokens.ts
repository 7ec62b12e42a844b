/**
 * The token dance: from a challenge to an `Authorization` header, asked for once and kept while it is good.
 *
 * Source: distribution's token specification, and what registries make of it (they differ in every field).
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { UpstreamError } from '../errors.ts';
import { readBody, replyError } from '../network/replies.ts';
import { discard, type Reply, type Transport } from '../network/transport.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { basicAuthorization, type CredentialProvider, type Credentials, fingerprint } from './credentials.ts';
import { isRealmAllowed } from './realm.ts';

const TOKEN_BODY_MAX_BYTES = 1024 * 1024;
/** "A token should never be returned with less than 60 seconds to live", and some say 0, or nothing. */
const MIN_LIFETIME_SECONDS = 60;
const MAX_LIFETIME_SECONDS = 3600;
/** Renewed this long before the end, so that none ends on its way. */
const RENEW_EARLY_MS = 5_000;

/** The specification of OAuth2 tokens wants one. */
const CLIENT_ID = 'millpond';
/** What token servers answer that know only GET: by the specification 404, JFrog 401, Azure 400 (containerd, authorizer.go). */
const NO_OAUTH2: readonly number[] = [400, 401, 404, 405];

interface Realm {
  url: URL;
  service: string | undefined;
  scope: string;
}

interface Token {
  authorization: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

export interface TokenSettings {
  name: string;
  /** Base URL of the registry. */
  url: string;
  /** Hosts outside the registry's domain that may get its credentials. */
  realmHosts: readonly string[];
  credentials: CredentialProvider;
}

export class Tokens {
  readonly #settings: TokenSettings;
  readonly #transport: Transport;
  readonly #clock: Clock;
  /** What the registry demanded for a repository, so that the next request needs no 401 first. */
  readonly #demandByRepository = new LRUCache<Repository, Realm | 'basic'>({ max: 10_000 });
  readonly #tokenByRealm = new LRUCache<string, Token>({ max: 10_000 });
  readonly #runningByRealm = new Map<string, Promise<Token>>();

  constructor(settings: TokenSettings, transport: Transport, clock: Clock) {
    this.#settings = settings;
    this.#transport = transport;
    this.#clock = clock;
  }

  /** What to send at first: undefined where the registry is yet to be heard. @throws {UpstreamError} */
  async known(context: RequestContext, repository: Repository): Promise<string | undefined> {
    const demand = this.#demandByRepository.get(repository);
    if (demand === undefined) return this.#readyToken();
    if (demand === 'basic') return this.#basic();
    try {
      return await this.#token(context, demand);
    } catch (error) {
      // The registry may want something else by now: nvcr.io's old token server answered 401 to a refresh.
      this.#demandByRepository.delete(repository);
      if (error instanceof UpstreamError && ['denied', 'invalid-response'].includes(error.code))
        return undefined;
      throw error;
    }
  }

  /**
   * What to send after `reply`, a 401 of the registry.
   *
   * @param rejected the `Authorization` that got it; a new one is fetched, unless somebody else has by now
   * @returns undefined if there is nothing that could help
   * @throws {UpstreamError}
   */
  async answer(
    context: RequestContext,
    reply: Reply,
    repository: Repository,
    rejected: string | undefined,
  ): Promise<string | undefined> {
    const challenges = parseChallenges(reply.headers['www-authenticate']);
    if (challenges.length === 0) challenges.push(...(await this.#challengesOfPing(context)));
    const bearer = challenges.find(
      ({ scheme, parameters }) => scheme === 'bearer' && parameters.has('realm'),
    );
    if (bearer !== undefined) {
      const ready = await this.#readyToken(rejected !== undefined);
      if (ready !== undefined) return ready === rejected ? undefined : ready;
      const realm = this.#realm(bearer, reply.url, repository);
      const authorization = await this.#token(context, realm, rejected);
      // Not before it has proved good, or one wrong challenge would be the end of this repository.
      this.#demandByRepository.set(repository, realm);
      return authorization;
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
    this.#demandByRepository.set(repository, 'basic');
    const authorization = await this.#basic(rejected !== undefined);
    return authorization === rejected ? undefined : authorization;
  }

  /** A token without credentials for a host that a redirect led to; used for one request, and forgotten. */
  async anonymous(
    context: RequestContext,
    reply: Reply,
    repository: Repository,
  ): Promise<string | undefined> {
    const bearer = parseChallenges(reply.headers['www-authenticate']).find(
      ({ scheme, parameters }) => scheme === 'bearer' && parameters.has('realm'),
    );
    if (bearer === undefined) return undefined;
    const realm = this.#realm(bearer, reply.url, repository);
    return (await this.#fetch(context, realm, reply.url, undefined)).authorization;
  }

  async #credentials(refused = false): Promise<Credentials | undefined> {
    try {
      return await this.#settings.credentials({ refused });
    } catch (error) {
      const what = 'its credentials cannot be read'; // why is for the log, not for clients
      throw new UpstreamError('unavailable', this.#settings.name, what, { cause: error });
    }
  }

  async #basic(refused = false): Promise<string | undefined> {
    const credentials = await this.#credentials(refused);
    return credentials === undefined ? undefined : basicAuthorization(credentials);
  }

  /** For who has no need of a token server. */
  async #readyToken(refused = false): Promise<string | undefined> {
    const credentials = await this.#credentials(refused);
    return credentials !== undefined && 'registryToken' in credentials
      ? `Bearer ${credentials.registryToken}`
      : undefined;
  }

  /** @param rejected an authorization that is no good any more */
  async #token(context: RequestContext, realm: Realm, rejected?: string): Promise<string> {
    const credentials = await this.#credentials();
    try {
      return await this.#tokenWith(context, realm, credentials, rejected);
    } catch (error) {
      if (!(error instanceof UpstreamError) || error.code !== 'denied') throw error;
      // A helper's answer may have been from yesterday.
      const renewed = await this.#credentials(true);
      if (fingerprint(renewed) === fingerprint(credentials)) throw error;
      return this.#tokenWith(context, realm, renewed, rejected);
    }
  }

  async #tokenWith(
    context: RequestContext,
    realm: Realm,
    credentials: Credentials | undefined,
    rejected?: string,
  ): Promise<string> {
    const key = `${keyOf(realm)} ${fingerprint(credentials)}`;
    const token = this.#tokenByRealm.get(key);
    const isGood = token !== undefined && this.#clock.now() < token.expiresAt - RENEW_EARLY_MS;
    if (isGood && token.authorization !== rejected) return token.authorization;
    let running = this.#runningByRealm.get(key);
    if (running === undefined) {
      running = this.#fetch(detached(context), realm, new URL(this.#settings.url), credentials)
        .then((fetched) => {
          this.#tokenByRealm.set(key, fetched);
          return fetched;
        })
        .finally(() => this.#runningByRealm.delete(key)); // after it is kept: nobody comes in between
      this.#runningByRealm.set(key, running);
    }
    return (await running).authorization;
  }

  async #fetch(
    context: RequestContext,
    realm: Realm,
    challenger: URL,
    credentials: Credentials | undefined,
  ): Promise<Token> {
    const { name, realmHosts } = this.#settings;
    if (!isRealmAllowed(realm.url, challenger, realmHosts)) {
      const what = `its token server ${realm.url.host} is on a foreign host; if it is the right one, add it to realmHosts`;
      throw new UpstreamError('invalid-response', name, what);
    }
    this.#transport.assertPublic(realm.url);
    const refreshToken = await this.#refreshToken(context, credentials);
    const reply =
      (refreshToken === undefined ? undefined : await this.#post(context, realm, refreshToken)) ??
      (await this.#get(context, realm, credentials));
    if (reply.status === 404 || reply.status === 410) {
      await discard(reply);
      // It is the token server that is not there, not the content: no cached tag is to be forgotten for this.
      const what = `its token server answered ${reply.status}`;
      throw new UpstreamError('invalid-response', name, what, { status: reply.status });
    }
    if (reply.status !== 200) throw await replyError(reply, name, 'its token server', this.#clock.now());
    return this.#parse(await readBody(reply, TOKEN_BODY_MAX_BYTES, name));
  }

  async #refreshToken(
    context: RequestContext,
    credentials: Credentials | undefined,
  ): Promise<string | undefined> {
    if (credentials === undefined) return undefined;
    if ('identityToken' in credentials) return credentials.identityToken;
    return 'entraToken' in credentials ? this.#exchange(context, credentials.entraToken) : undefined;
  }

  /** Azure/acr, docs/AAD-OAuth.md: "Calling POST /oauth2/exchange to get an ACR refresh token". */
  async #exchange(context: RequestContext, entraToken: string): Promise<string> {
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

  #sendForm(context: RequestContext, url: URL, form: Record<string, string>): Promise<Reply> {
    const headers = { Accept: 'application/json', 'Content-Type': 'application/x-www-form-urlencoded' };
    const body = new URLSearchParams(form).toString();
    return this.#transport.send({ context, method: 'POST', url, headers, kind: 'token', body });
  }

  #get(context: RequestContext, realm: Realm, credentials: Credentials | undefined): Promise<Reply> {
    const url = new URL(realm.url);
    if (realm.service !== undefined) url.searchParams.set('service', realm.service);
    url.searchParams.set('scope', realm.scope);
    const headers = credentials === undefined ? {} : { Authorization: basicAuthorization(credentials) };
    return this.#transport.send({
      context,
      method: 'GET',
      url,
      headers: { Accept: 'application/json', ...headers },
      kind: 'token',
    });
  }

  /** @returns undefined if the token server does not do OAuth2: then a GET has to do */
  async #post(context: RequestContext, realm: Realm, refreshToken: string): Promise<Reply | undefined> {
    const reply = await this.#sendForm(context, realm.url, {
      grant_type: 'refresh_token',
      refresh_token: refreshToken,
      client_id: CLIENT_ID,
      scope: realm.scope,
      ...(realm.service === undefined ? {} : { service: realm.service }),
    });
    if (!NO_OAUTH2.includes(reply.status)) return reply;
    await discard(reply);
    return undefined;
  }

  #parse(body: Buffer): Token {
    const token = stringField(body, 'token') ?? stringField(body, 'access_token');
    // What goes into a header must be fit for one.
    if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) {
      throw new UpstreamError('invalid-response', this.#settings.name, 'its token server sent no token');
    }
    const fields = jsonObject(body);
    const seconds = typeof fields['expires_in'] === 'number' ? fields['expires_in'] : MIN_LIFETIME_SECONDS;
    const lifetime = Math.min(Math.max(seconds, MIN_LIFETIME_SECONDS), MAX_LIFETIME_SECONDS);
    // From now, and not from issued_at: clocks differ.
    return { authorization: `Bearer ${token}`, expiresAt: this.#clock.now() + lifetime * 1000 };
  }

  #realm({ parameters }: Challenge, challenger: URL, repository: Repository): Realm {
    const realm = parameters.get('realm') ?? '';
    if (!URL.canParse(realm, challenger.href)) {
      throw new UpstreamError('invalid-response', this.#settings.name, 'its challenge names no usable realm');
    }
    // nvcr.io sends scope="" on its ping; others send none.
    const scope = parameters.get('scope') || `repository:${repository}:pull`;
    return { url: new URL(realm, challenger), service: parameters.get('service'), scope };
  }

  /** gcr.io sends some 401s without a challenge; the ping has one. */
  async #challengesOfPing(context: RequestContext): Promise<Challenge[]> {
    const url = new URL(`${this.#settings.url}/v2/`);
    const reply = await this.#transport.send({ context, method: 'GET', url, headers: {}, kind: 'token' });
    await discard(reply);
    return parseChallenges(reply.headers['www-authenticate']);
  }
}

function keyOf({ url, service, scope }: Realm): string {
  return `${url.href} ${service ?? ''} ${scope}`;
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
