/** Reads the bodies of replies, up to a limit, and maps replies that are not a success to errors. */

import { toUpstreamError, UpstreamError, type UpstreamErrorCode } from '../errors.ts';
import { explainRateLimit, parseRetryAfter } from '../limits/rate-limit.ts';
import { isEncoded } from './reply-headers.ts';
import { abandon, discard, type Reply } from './transport.ts';

const ERROR_BODY_MAX_BYTES = 64 * 1024;
const ERROR_TEXT_MAX_LENGTH = 200;

/**
 * Reads the whole body.
 *
 * @param limit bytes; reading stops there
 * @throws {UpstreamError} the body is longer or encoded, or its connection broke
 */
export async function readBody(reply: Reply, limit: number, upstream: string): Promise<Buffer> {
  assertIdentity(reply, upstream);
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of reply.body as AsyncIterable<Buffer>) {
      length += chunk.length;
      // Throwing leaves the loop, which destroys the body. So a body without an end stops here.
      if (length > limit)
        throw new UpstreamError('invalid-response', upstream, `its reply is longer than ${limit} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw toUpstreamError(error, upstream, reply.url.host);
  }
  return Buffer.concat(chunks, length);
}

/** Refuses an encoded body, because digests are over plain bytes. We requested `identity`. @throws {UpstreamError} */
export function assertIdentity(reply: Reply, upstream: string): void {
  if (!isEncoded(reply.headers)) return;
  const encoding = reply.headers['content-encoding'];
  abandon(reply);
  throw new UpstreamError(
    'invalid-response',
    upstream,
    `its reply is encoded (${String(encoding)}), although the mirror asked for identity`,
  );
}

/**
 * Maps a reply that is not a success to an error. Reads its body.
 *
 * @param subject the server that answered, for the message
 * @param now milliseconds since the epoch
 */
export async function replyError(
  reply: Reply,
  upstream: string,
  subject: string,
  now: number,
): Promise<UpstreamError> {
  const { status } = reply;
  const said = await readError(reply, upstream);
  const refusal = status === 429 ? explainRateLimit(said.code, said.text) : undefined;
  const retryAfterMs = parseRetryAfter(reply.headers['retry-after'], now) ?? refusal?.pauseMs;
  const through = reply.proxyHost === undefined ? '' : ` through the proxy ${reply.proxyHost}`;
  const advice = refusal === undefined || refusal.advice === '' ? '' : ` (${refusal.advice})`;
  const text = (said.text === '' ? '' : `: ${said.text}`) + advice;
  return new UpstreamError(codeOfStatus(status), upstream, `${subject}${through} answered ${status}${text}`, {
    status,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(said.code === undefined ? {} : { upstreamCode: said.code }),
  });
}

function codeOfStatus(status: number): UpstreamErrorCode {
  switch (status) {
    case 404:
    case 410:
      return 'not-found';
    case 401:
    case 403:
      return 'denied';
    case 429:
      return 'rate-limited';
    case 408:
    case 504:
      return 'timeout';
    default:
      return status >= 500 ? 'unavailable' : 'invalid-response';
  }
}

async function readError(reply: Reply, upstream: string): Promise<{ code?: string; text: string }> {
  let body: string;
  try {
    body = (await readBody(reply, ERROR_BODY_MAX_BYTES, upstream)).toString('utf8');
  } catch {
    await discard(reply);
    return { text: '' }; // the status is enough for an error
  }
  const first = firstOciError(body);
  const code =
    typeof first?.['code'] === 'string' && /^[A-Z_]{1,64}$/.test(first['code']) ? first['code'] : undefined;
  const message = typeof first?.['message'] === 'string' ? first['message'] : isMarkup(reply) ? '' : body;
  const text = printable([code, message].filter((part) => part !== undefined && part !== '').join(' '));
  return { ...(code === undefined ? {} : { code }), text };
}

function firstOciError(body: string): Record<string, unknown> | undefined {
  try {
    const json = JSON.parse(body) as { errors?: unknown } | null;
    const first: unknown = Array.isArray(json?.errors) ? json.errors[0] : undefined;
    return typeof first === 'object' && first !== null ? (first as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isMarkup(reply: Reply): boolean {
  return !/^(text\/plain|application\/json)/.test(String(reply.headers['content-type'] ?? ''));
}

/** Makes text of upstream safe for a message: one short line of printable ASCII. */
function printable(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, ERROR_TEXT_MAX_LENGTH);
}
