/** Asks an upstream for `/v2/`: whether it is a registry, and what it demands. */
import { type Challenge, parseChallenges } from '../../../upstream/auth/challenge.ts';
import type { UpstreamError } from '../../../upstream/errors.ts';
import { replyError } from '../../../upstream/network/replies.ts';
import { firstValue, mediaTypeOf } from '../../../upstream/network/reply-headers.ts';
import { discard, type Reply } from '../../../upstream/network/transport.ts';
import { type Endpoint, requestContext } from './context.ts';
import { CheckFailure, type Finding } from './result.ts';

export interface Answer {
  finding: Finding;
  headers: Reply['headers'];
  /** Empty: it demands nothing. */
  challenges: Challenge[];
  /** Where the reply came from. */
  url: URL;
  /** How far the clock of this machine is ahead of the registry's, in milliseconds. Absent: it did not say the time. */
  skewMs: number | undefined;
}

/** @throws {CheckFailure} @throws {UpstreamError} no reply */
export async function askRegistry(endpoint: Endpoint, signal: AbortSignal): Promise<Answer> {
  const { name, clock } = endpoint;
  const begun = clock.now();
  const reply = await ping(endpoint, {}, signal);
  const date = Date.parse(firstValue(reply.headers['date']) ?? '');
  const skewMs = Number.isNaN(date) ? undefined : (begun + clock.now()) / 2 - date;
  const { status, headers, url } = reply;
  if (status !== 200 && status !== 401) throw await refusal(endpoint, reply);
  await discard(reply);
  const challenges = status === 401 ? parseChallenges(headers['www-authenticate']) : [];
  const advice = `check upstreams.${name}.url`;
  if (status === 401 && challenges.length === 0)
    throw new CheckFailure('it answers /v2/ with 401 and does not say what it demands', advice);
  if (status === 200 && mediaTypeOf(headers) === 'text/html')
    throw new CheckFailure('it answers /v2/ with a web page, and so is no registry', advice);
  const demands = challenges.some(({ scheme }) => scheme === 'bearer') ? 'a token' : 'a password';
  const message = `it answers /v2/ and demands ${challenges.length === 0 ? 'nothing' : demands}`;
  return { finding: { outcome: 'ok', message }, headers, challenges, url, skewMs };
}

/** Sends a GET of `/v2/`. */
export function ping(
  { transport, settings }: Endpoint,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<Reply> {
  const url = new URL(`${settings.url}/v2/`);
  return transport.send({ context: requestContext(signal), method: 'GET', url, headers, kind: 'token' });
}

/** The failure that a reply other than a success means. Reads the reply. */
export async function refusal({ name, clock }: Endpoint, reply: Reply): Promise<CheckFailure> {
  return failureOf(await replyError(reply, name, 'it', clock.now()), name);
}

/** @param upstream its name */
export function failureOf(error: UpstreamError, upstream: string): CheckFailure {
  return new CheckFailure(error.message.slice(`${upstream}: `.length), adviceFor(error, upstream), error);
}

function adviceFor({ code, retryAfterMs, status }: UpstreamError, upstream: string): string {
  switch (code) {
    case 'rate-limited':
      return retryAfterMs === undefined
        ? 'wait, and run this command again'
        : `wait ${Math.ceil(retryAfterMs / 1000)} s, and run this command again`;
    case 'denied':
      return `check upstreams.${upstream}.credentials, and whether the registry lets this machine in`;
    case 'timeout':
    case 'unavailable':
      return status === undefined
        ? `check the way to it: firewall, proxy, and upstreams.${upstream}.url`
        : 'wait, or ask whoever runs the registry';
    case 'invalid-response':
    case 'not-found':
    case 'sealed':
      return `check upstreams.${upstream}.url`;
  }
}
