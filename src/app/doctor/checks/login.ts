/** Logs in to an upstream: gets a token, and finds out whether the credentials are accepted. */
import { isBearerWithRealm } from '../../../upstream/auth/challenge.ts';
import { basicAuthorization, type Credentials } from '../../../upstream/auth/credentials.ts';
import { TokenClient, tokenDemand } from '../../../upstream/auth/token-client.ts';
import { UpstreamError } from '../../../upstream/errors.ts';
import { discard } from '../../../upstream/network/transport.ts';
import { type Endpoint, requestContext } from './context.ts';
import { type Answer, failureOf, ping, refusal } from './registry.ts';
import { CheckFailure, type Finding } from './result.ts';

/** Gives the `Authorization` for a scope; undefined: send none. Without a scope it only proves who asks. */
export type Authorize = (scope: string | undefined, signal: AbortSignal) => Promise<string | undefined>;

/** The credentials of the configuration; undefined: none. @throws {CheckFailure} they cannot be read */
export async function readCredentials({ name, settings }: Endpoint): Promise<Credentials | undefined> {
  try {
    return await settings.credentials();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CheckFailure(`they cannot be read: ${why}`, `check upstreams.${name}.credentials`, error);
  }
}

/** @returns how to answer the challenges; undefined if the registry does not demand a token */
export function authorizer(
  endpoint: Endpoint,
  { challenges, url }: Answer,
  credentials: Credentials | undefined,
): { demandsToken: boolean; authorize: Authorize } {
  const bearer = challenges.find(isBearerWithRealm);
  const fixed = credentials !== undefined && 'registryToken' in credentials;
  if (bearer !== undefined && fixed)
    return { demandsToken: false, authorize: async () => `Bearer ${credentials.registryToken}` };
  if (bearer !== undefined) {
    const { settings, transport, clock } = endpoint;
    const client = new TokenClient(settings, transport, clock);
    const authorize: Authorize = async (scope, signal) => {
      const demand = {
        ...tokenDemand(bearer, url, settings.name),
        ...(scope === undefined ? {} : { scope }),
      };
      const token = await client.fetch(requestContext(signal), demand, new URL(settings.url), credentials);
      return token.authorization;
    };
    return { demandsToken: true, authorize };
  }
  const basic =
    challenges.length === 0 || credentials === undefined ? undefined : basicAuthorization(credentials);
  return { demandsToken: false, authorize: async () => basic };
}

/** @returns the host of the token server, for messages */
export function tokenServer(endpoint: Endpoint, { challenges, url }: Answer): string {
  const bearer = challenges.find(isBearerWithRealm);
  return bearer === undefined ? '' : tokenDemand(bearer, url, endpoint.name).realm.host;
}

/**
 * The failure that an error of the token server means.
 *
 * @returns `check` is the one that failed
 */
export function tokenFailure(
  { name }: Endpoint,
  error: unknown,
  credentials: Credentials | undefined,
): { check: 'token' | 'credentials'; failure: CheckFailure } {
  if (!(error instanceof UpstreamError)) throw error;
  const failure = failureOf(error, name);
  if (error.code !== 'denied') return { check: 'token', failure };
  return credentials === undefined
    ? {
        check: 'token',
        failure: new CheckFailure(
          `${failure.message}, and no credentials are configured`,
          `configure upstreams.${name}.credentials`,
          error,
        ),
      }
    : { check: 'credentials', failure: refused(name, failure.message, error) };
}

/** Shows the registry what was obtained with the credentials. @throws {CheckFailure} */
export async function checkCredentials(
  endpoint: Endpoint,
  { challenges }: Answer,
  { credentials, authorization }: { credentials: Credentials | undefined; authorization: string | undefined },
  signal: AbortSignal,
): Promise<Finding> {
  const { name, config } = endpoint;
  if (
    credentials === undefined &&
    challenges.some(({ scheme }) => scheme === 'basic') &&
    authorization === undefined
  )
    throw new CheckFailure(
      'it demands a password, and none is configured',
      `configure upstreams.${name}.credentials`,
    );
  if (credentials === undefined)
    return config.credentials === 'none'
      ? { outcome: 'ok', message: 'none are configured: pulls are anonymous' }
      : {
          outcome: 'warning',
          message: `what upstreams.${name}.credentials names has none for this registry: pulls are anonymous`,
          advice: 'log in there, or remove the key',
        };
  if (authorization === undefined)
    return { outcome: 'skipped', message: 'not checked, because the registry demands none for /v2/' };
  const reply = await ping(endpoint, { Authorization: authorization }, signal);
  if (reply.status === 200) {
    await discard(reply);
    return { outcome: 'ok', message: 'the registry accepts them' };
  }
  const failure = await refusal(endpoint, reply);
  throw reply.status === 401 || reply.status === 403 ? refused(name, failure.message, failure) : failure;
}

function refused(name: string, message: string, cause: unknown): CheckFailure {
  const advice = `check the user name and the password in upstreams.${name}.credentials, and whether they have expired`;
  return new CheckFailure(`they are not accepted: ${message}`, advice, cause);
}
