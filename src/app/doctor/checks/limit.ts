/** Finds out how many pulls an upstream still allows, without spending one. */
import { parseRateLimit, type RateLimit } from '../../../upstream/limits/rate-limit.ts';
import { discard } from '../../../upstream/network/transport.ts';
import { type Endpoint, requestContext } from './context.ts';
import type { Authorize } from './login.ts';
import { type Answer, refusal } from './registry.ts';
import { CheckFailure, type Finding } from './result.ts';

/** Docker Hub tells the limit in replies for this repository. A HEAD is no pull (docs.docker.com, "Usage and limits"). */
const HUB = 'docker.io';
const HUB_REPOSITORY = 'ratelimitpreview/test';
/** Of the limit. */
const SCARCE_SHARE = 0.1;

/** @throws {CheckFailure} no pull is left @throws {UpstreamError} */
export async function checkLimit(
  endpoint: Endpoint,
  answer: Answer,
  authorize: Authorize,
  signal: AbortSignal,
): Promise<Finding> {
  const { name, config, clock } = endpoint;
  const headers = name === HUB ? await headOfHub(endpoint, authorize, signal) : answer.headers;
  const { limit, remaining, windowMs } = parseRateLimit(headers ?? {}, clock.now());
  if (remaining === undefined) return { outcome: 'skipped', message: 'it says nothing about a limit' };
  const message = `${remaining} of ${limit ?? '?'} pulls are left${inHours(windowMs)}`;
  const advice =
    config.credentials === 'none'
      ? `wait, or configure upstreams.${name}.credentials of an account that is allowed more`
      : 'wait, or use an account that is allowed more';
  if (remaining === 0) throw new CheckFailure(message, advice);
  const reserve = Math.max(config.rateLimit.reserve, (limit ?? 0) * SCARCE_SHARE);
  return remaining > reserve ? { outcome: 'ok', message } : { outcome: 'warning', message, advice };
}

async function headOfHub(endpoint: Endpoint, authorize: Authorize, signal: AbortSignal) {
  const { settings, transport } = endpoint;
  const authorization = await authorize(`repository:${HUB_REPOSITORY}:pull`, signal);
  const reply = await transport.send({
    context: requestContext(signal),
    method: 'HEAD',
    url: new URL(`${settings.url}/v2/${HUB_REPOSITORY}/manifests/latest`),
    headers: authorization === undefined ? {} : { Authorization: authorization },
    kind: 'token',
  });
  if (reply.status !== 200 && reply.status !== 404) throw await refusal(endpoint, reply);
  await discard(reply);
  return reply.headers;
}

function inHours(windowMs: RateLimit['windowMs']): string {
  return windowMs === undefined ? '' : `, counted over ${Math.round(windowMs / 360_000) / 10} h`;
}
