/**
 * Asks an upstream for a node that is cut off from it. Asks that upstream itself and nobody else, so that there is no
 * circle, and only if this node may: not while it is sealed, and within its own limits.
 *
 * The other node has authorised its client. Whether the repository may serve it, upstream says.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { digestOf } from '../../oci/digest.ts';
import type { RequestContext } from '../../request-context.ts';
import { isUnreachable, UpstreamError } from '../../upstream/errors.ts';
import type { BandwidthShare } from '../../upstream/limits/bandwidth-share.ts';
import type { Bandwidth } from '../../upstream/limits/bandwidths.ts';
import type { Upstream } from '../../upstream/upstream.ts';
import { HEADERS, readHeaders } from '../nodes/peer-requests.ts';
import type { PeerSignatures } from '../nodes/peer-signatures.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import {
  ANSWER_HEADER,
  ANSWER_SIGNED_AS,
  encode,
  parseRelayPath,
  type RelayAnswer,
  type RelayRequest,
} from './relay-messages.ts';

/** The way of this node to an upstream. */
export interface OwnWay {
  /** The upstream itself, without the fleet. */
  upstream: Upstream;
  bandwidth: Bandwidth;
}

export interface RelayRouteContext {
  signatures: PeerSignatures;
  secret: FleetSecret;
  /** @param upstream as all nodes call it. Undefined: this node has none that is the same */
  ownWay: (upstream: string) => Promise<OwnWay | undefined>;
}

export function answerRelays({ signatures, secret, ownWay }: RelayRouteContext) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = request.url ?? '';
    const parsed = parseRelayPath(path);
    const read = readHeaders(path, request.headers);
    if (parsed === undefined || read === undefined || request.method !== 'GET')
      return void response.writeHead(404).end();
    if (!(await signatures.isFromMember(read.request, read.signature)))
      return void response.writeHead(401).end('this is for nodes of the same fleet only\n');
    const abort = new AbortController();
    response.once('close', () => abort.abort()); // the other node has gone, or has all
    const way = await ownWay(parsed.upstream);
    const { answer, body = [] } = await carryOut(way, parsed.asked, abort.signal);
    const encoded = encode(answer);
    try {
      response.writeHead(200, {
        [ANSWER_HEADER]: encoded,
        [HEADERS.signature]: await secret.sign(ANSWER_SIGNED_AS, `${read.request.nonce} ${encoded}`),
      });
      response.flushHeaders(); // the first byte may still be on its way
      await pipeline(body instanceof Buffer ? [body] : body, response);
    } catch {
      response.destroy(); // the other node sees that it is cut, and asks again from there
    }
  };
}

interface CarriedOut {
  answer: RelayAnswer;
  body?: Buffer | AsyncIterable<Buffer>;
}

const NONE: CarriedOut = { answer: { kind: 'none' } };

async function carryOut(
  way: OwnWay | undefined,
  asked: RelayRequest,
  signal: AbortSignal,
): Promise<CarriedOut> {
  if (way === undefined) return NONE;
  try {
    return await ask(way, asked, { id: asked.requestId, identity: { kind: 'mirror' }, signal });
  } catch (error) {
    if (!(error instanceof UpstreamError) || error.code === 'sealed' || isUnreachable(error)) return NONE;
    const { code, message, status, retryAfterMs, upstreamCode } = error;
    const told = message.slice(`${error.upstream}: `.length);
    return { answer: { kind: 'refused', code, message: told, status, retryAfterMs, upstreamCode } };
  }
}

async function ask(
  { upstream, bandwidth }: OwnWay,
  asked: RelayRequest,
  context: RequestContext & { signal: AbortSignal },
): Promise<CarriedOut> {
  const { repository } = asked;
  switch (asked.ask) {
    case 'headManifest': {
      const head = await upstream.headManifest(context, repository, asked.reference, acceptOf(asked));
      return { answer: { kind: 'head', ...head } };
    }
    case 'fetchManifest': {
      const options = { ...acceptOf(asked), canWait: asked.canWait === true };
      const { bytes, ...rest } = await upstream.fetchManifest(context, repository, asked.reference, options);
      return { answer: { kind: 'whole', ...rest }, body: bytes };
    }
    case 'headBlob':
      return { answer: { kind: 'head', ...(await upstream.headBlob(context, repository, asked.digest)) } };
    case 'fetchBlob':
      return fetchBlob({ upstream, bandwidth }, asked, context);
    case 'fetchTags': {
      const { body, ...rest } = await upstream.fetchTags(context, repository, asked.query);
      return { answer: { kind: 'whole', digest: digestOf(body), ...rest }, body };
    }
    case 'fetchReferrers': {
      const found = await upstream.fetchReferrers(context, repository, asked.digest, asked.query);
      if (found === undefined) return { answer: { kind: 'unsupported' } };
      const { body, ...rest } = found;
      return { answer: { kind: 'whole', digest: digestOf(body), ...rest }, body };
    }
  }
}

async function fetchBlob(
  { upstream, bandwidth }: OwnWay,
  { repository, digest, from, to }: Extract<RelayRequest, { ask: 'fetchBlob' }>,
  context: RequestContext & { signal: AbortSignal },
): Promise<CarriedOut> {
  const range = { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
  const { start, ranged, size, body } = await upstream.fetchBlob(context, repository, digest, range);
  const share = bandwidth.openShare();
  const stop = () => {
    body.on('error', () => undefined).destroy();
    share.close();
  };
  if (context.signal.aborted) stop();
  context.signal.addEventListener('abort', stop);
  return { answer: { kind: 'blob', start, ranged, size }, body: paced(body, share, context.signal) };
}

/** This node's own limits hold for what it fetches for another one. */
async function* paced(
  body: Readable,
  share: BandwidthShare,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  share.addClient();
  for await (const chunk of body as AsyncIterable<Buffer>) {
    for (let rest = chunk; rest.length > 0; ) {
      const length = share.isFree ? rest.length : await share.take(rest.length, signal);
      yield rest.subarray(0, length);
      rest = rest.subarray(length);
    }
  }
}

function acceptOf({ accept }: { accept?: string | undefined }): { accept?: string } {
  return accept === undefined ? {} : { accept };
}
