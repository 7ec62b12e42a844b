/** Answers the challenges of a registry, and keeps the tokens until they expire. */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../clock.ts';
import type { Repository } from '../../oci/reference.ts';
import { detached, type RequestContext } from '../../request-context.ts';
import { SingleFlight } from '../../single-flight.ts';
import { UpstreamError } from '../errors.ts';
import { discard, type Reply, type Transport } from '../network/transport.ts';
import { type Challenge, isBearerWithRealm, parseChallenges } from './challenge.ts';
import { basicAuthorization, type CredentialProvider, type Credentials, fingerprint } from './credentials.ts';
import {
  type Token,
  TokenClient,
  type TokenClientSettings,
  type TokenDemand,
  tokenDemand,
} from './token-client.ts';

/** Renew a token this long before it expires, so that none expires while its request is under way. */
const RENEW_EARLY_MS = 5_000;

/** At most so many of each. Not by `max`, for which lru-cache takes all the memory at once: 0.4 MB for each upstream. */
const REMEMBERED = { maxSize: 10_000, sizeCalculation: () => 1 };

export interface TokenSettings extends TokenClientSettings {
  credentials: CredentialProvider;
}

export interface TokensContext {
  clock: Clock;
  /** Called when the registry or its token server does not accept our credentials. */
  onRefused: () => void;
}

export class Tokens {
  readonly #settings: TokenSettings;
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #onRefused: () => void;
  readonly #client: TokenClient;
  /** What the registry last demanded for a repository. With it, the next request does not need a 401 first. */
  readonly #demandByRepository = new LRUCache<Repository, TokenDemand | 'basic'>(REMEMBERED);
  readonly #tokenByKey = new LRUCache<string, Token>(REMEMBERED);
  readonly #fetches = new SingleFlight<Token>();

  constructor(settings: TokenSettings, transport: Transport, { clock, onRefused }: TokensContext) {
    this.#settings = settings;
    this.#transport = transport;
    this.#clock = clock;
    this.#onRefused = onRefused;
    this.#client = new TokenClient(settings, transport, clock);
  }

  /**
   * The `Authorization` for the first request.
   *
   * @returns undefined if there is none, or if it is not known yet what the registry demands
   * @throws {UpstreamError}
   */
  async known(context: RequestContext, repository: Repository): Promise<string | undefined> {
    const demand = this.#demandByRepository.get(repository);
    if (demand === undefined) return this.#registryToken();
    if (demand === 'basic') return this.#basic();
    try {
      return await this.#token(context, demand);
    } catch (error) {
      // Ask the registry again what it demands, because that may have changed: nvcr.io's old token server answered 401.
      this.#demandByRepository.delete(repository);
      if (error instanceof UpstreamError && ['denied', 'invalid-response'].includes(error.code))
        return undefined;
      throw error;
    }
  }

  /**
   * The `Authorization` that answers `reply`, a 401 of the registry.
   *
   * @param rejected the `Authorization` that got the 401. A new token is fetched, unless another request has done so.
   * @returns undefined if no other `Authorization` is left to try
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
    const bearer = challenges.find(isBearerWithRealm);
    if (bearer !== undefined) {
      const ready = await this.#registryToken(rejected !== undefined);
      if (ready !== undefined) return this.#unlessRefused(ready, rejected);
      const demand = this.#demandOf(bearer, reply.url, repository);
      const authorization = await this.#token(context, demand, rejected);
      // Remember the demand only now that it led to a token. Else one wrong challenge would spoil every later request.
      this.#demandByRepository.set(repository, demand);
      return authorization;
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
    this.#demandByRepository.set(repository, 'basic');
    const authorization = await this.#basic(rejected !== undefined);
    return this.#unlessRefused(authorization, rejected);
  }

  /** The `Authorization` for a host that a redirect led to. Obtained without our credentials, and not kept. */
  async anonymous(
    context: RequestContext,
    reply: Reply,
    repository: Repository,
  ): Promise<string | undefined> {
    const bearer = parseChallenges(reply.headers['www-authenticate']).find(isBearerWithRealm);
    if (bearer === undefined) return undefined;
    const demand = this.#demandOf(bearer, reply.url, repository);
    return (await this.#client.fetch(context, demand, reply.url, undefined)).authorization;
  }

  /** @returns undefined if `rejected` is all that we have */
  #unlessRefused(authorization: string | undefined, rejected: string | undefined): string | undefined {
    if (authorization !== rejected) return authorization;
    if (authorization !== undefined) this.#onRefused();
    return undefined;
  }

  async #credentials(refused = false): Promise<Credentials | undefined> {
    try {
      return await this.#settings.credentials({ refused });
    } catch (error) {
      // The cause goes to the log only: clients must not learn where the secrets are.
      const what = 'its credentials cannot be read; the log says why';
      throw new UpstreamError('unavailable', this.#settings.name, what, { cause: error });
    }
  }

  async #basic(refused = false): Promise<string | undefined> {
    const credentials = await this.#credentials(refused);
    return credentials === undefined ? undefined : basicAuthorization(credentials);
  }

  /** The `Authorization` of credentials that need no token server. */
  async #registryToken(refused = false): Promise<string | undefined> {
    const credentials = await this.#credentials(refused);
    return credentials !== undefined && 'registryToken' in credentials
      ? `Bearer ${credentials.registryToken}`
      : undefined;
  }

  /** @param rejected an `Authorization` that the registry no longer accepts */
  async #token(context: RequestContext, demand: TokenDemand, rejected?: string): Promise<string> {
    const credentials = await this.#credentials();
    try {
      return await this.#tokenFor(context, demand, credentials, rejected);
    } catch (error) {
      if (!(error instanceof UpstreamError) || error.code !== 'denied') throw error;
      // Ask the provider again: a credential helper may have given a copy that is out of date.
      const renewed = await this.#credentials(true);
      if (fingerprint(renewed) !== fingerprint(credentials))
        return this.#tokenFor(context, demand, renewed, rejected);
      // A 403 is about the repository.
      if (credentials !== undefined && error.status === 401) this.#onRefused();
      throw error;
    }
  }

  async #tokenFor(
    context: RequestContext,
    demand: TokenDemand,
    credentials: Credentials | undefined,
    rejected?: string,
  ): Promise<string> {
    const key = `${demand.realm.href} ${demand.service ?? ''} ${demand.scope ?? ''} ${fingerprint(credentials)}`;
    const token = this.#tokenByKey.get(key);
    const isGood = token !== undefined && this.#clock.now() < token.expiresAt - RENEW_EARLY_MS;
    if (isGood && token.authorization !== rejected) return token.authorization;
    const { result } = this.#fetches.run(key, async () => {
      const registry = new URL(this.#settings.url);
      const fetched = await this.#client.fetch(detached(context), demand, registry, credentials);
      this.#tokenByKey.set(key, fetched);
      return fetched;
    });
    return (await result).authorization;
  }

  #demandOf(challenge: Challenge, challenger: URL, repository: Repository): TokenDemand {
    const demand = tokenDemand(challenge, challenger, this.#settings.name);
    return { ...demand, scope: demand.scope ?? `repository:${repository}:pull` };
  }

  /** gcr.io sends some 401s without a challenge. Its ping, `/v2/`, always has one. */
  async #challengesOfPing(context: RequestContext): Promise<Challenge[]> {
    const url = new URL(`${this.#settings.url}/v2/`);
    const reply = await this.#transport.send({ context, method: 'GET', url, headers: {}, kind: 'token' });
    await discard(reply);
    return parseChallenges(reply.headers['www-authenticate']);
  }
}
