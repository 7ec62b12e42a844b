/**
 * What a node that is cut off from an upstream asks another one: one request to that upstream. And how that one answers.
 *
 * A later version may add fields. They are ignored.
 */
import * as z from 'zod';
import { parseDigest } from '../../oci/digest.ts';
import { parseReference, parseRepository } from '../../oci/reference.ts';

/** Of a manifest, and of a page of a list. */
export const RELAYED_MAX_BYTES = 8 * 1024 * 1024;

/** Holds the answer, but for its body. */
export const ANSWER_HEADER = 'millpond-answer';

/** Names the signature of an answer, which is over the nonce of the request, a space and {@link ANSWER_HEADER}. */
export const ANSWER_SIGNED_AS = 'relay answer';

function parsed<T>(parse: (text: string) => T | undefined) {
  return z.string().transform((text, context) => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.issues.push({ code: 'custom', input: text, message: 'is none' });
    return z.NEVER;
  });
}

const repository = parsed(parseRepository);
const digest = parsed(parseDigest);
const reference = parsed(parseReference);
const bytes = z.int().min(0);
const requestId = z.string().max(200);
const text = z.string();

const relayRequest = z.discriminatedUnion('ask', [
  z.object({
    ask: z.literal('headManifest'),
    ...{ requestId, repository, reference, accept: text.optional() },
  }),
  z.object({
    ask: z.literal('fetchManifest'),
    ...{ requestId, repository, reference, accept: text.optional(), canWait: z.boolean().optional() },
  }),
  z.object({ ask: z.literal('headBlob'), requestId, repository, digest }),
  z.object({
    ask: z.literal('fetchBlob'),
    ...{ requestId, repository, digest, from: bytes.optional(), to: bytes.optional() },
  }),
  z.object({ ask: z.literal('fetchTags'), requestId, repository, query: text }),
  z.object({ ask: z.literal('fetchReferrers'), requestId, repository, digest, query: text }),
]);

export const relayAnswer = z.discriminatedUnion('kind', [
  /** It does not reach upstream either, or must not. */
  z.object({ kind: z.literal('none') }),
  /** Upstream has answered with an error, or limits that node. */
  z.object({
    kind: z.literal('refused'),
    code: z.enum(['not-found', 'denied', 'rate-limited', 'unavailable', 'timeout', 'invalid-response']),
    message: text,
    status: z.int().optional(),
    retryAfterMs: z.number().optional(),
    upstreamCode: text.optional(),
  }),
  z.object({
    kind: z.literal('head'),
    ...{ digest: digest.optional(), mediaType: text.optional(), size: bytes.optional() },
  }),
  /** Followed by the bytes as upstream sends them, not verified. */
  z.object({ kind: z.literal('blob'), start: bytes, ranged: z.boolean(), size: bytes.optional() }),
  /** Followed by a manifest, or by a page of a list, of this digest. */
  z.object({
    kind: z.literal('whole'),
    ...{ digest, mediaType: text.optional(), next: text.optional(), filtersApplied: text.optional() },
  }),
  /** Upstream has no such API. */
  z.object({ kind: z.literal('unsupported') }),
]);

export type RelayRequest = z.output<typeof relayRequest>;
export type RelayAnswer = z.output<typeof relayAnswer>;

/** Begins every path of {@link relayPath}, and no other one. */
export const RELAYS = '/fleet/relay/';
const PATH = /^\/fleet\/relay\/([0-9a-f]{32})\/([\w-]+)$/;

/** @param upstream as all nodes call it */
export function relayPath(upstream: string, request: RelayRequest): string {
  return `${RELAYS}${upstream}/${encode(request)}`;
}

/** @returns undefined if it is no path of {@link relayPath} */
export function parseRelayPath(path: string): { upstream: string; asked: RelayRequest } | undefined {
  const [, upstream = '', encoded = ''] = PATH.exec(path) ?? [];
  const asked = decode(relayRequest, encoded);
  return asked && { upstream, asked };
}

/** As URL and header can hold it. */
export function encode(message: RelayRequest | RelayAnswer): string {
  return Buffer.from(JSON.stringify(message)).toString('base64url');
}

/** @returns undefined if it is not what `schema` says */
export function decode<T>(schema: z.ZodType<T>, encoded: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(Buffer.from(encoded, 'base64url').toString('utf8'))).data;
  } catch {
    return undefined; // no JSON
  }
}
