/** Answers other nodes of the fleet, and nobody else, with what this node has of a blob or gets right now. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import type { ContentReader } from '../../cache/store/content-store.ts';
import type { Clock } from '../../clock.ts';
import type { Digest } from '../../oci/digest.ts';
import { HEADERS, parsePeerPath, readHeaders, TAGS } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeerRouteContext {
  signatures: PeerSignatures;
  /**
   * Opens what is here, stored or coming in. Begins nothing, and gives nothing that itself comes from another node: no
   * circle.
   *
   * @param upstream as all nodes call it
   */
  openHere: (upstream: string, digest: Digest) => Promise<ContentReader | undefined>;
  /** Resolves when it is known where the bytes come from that are asked for here just now. Undefined: none are. */
  opening: (upstream: string, digest: Digest) => Promise<unknown> | undefined;
  /** Resolves when all know what upstream says of a tag that it is asked of here just now. Undefined: it is not. */
  asking: (tag: Digest) => Promise<unknown> | undefined;
  clock: Clock;
}

const PIECE_BYTES = 256 * 1024;
/** So long an answer may take. Then the other node is told that this one lives, and asks again if it wants to. */
const WAIT_MS = 1_000;
/** This node waits for upstream itself. */
const WAITING: unique symbol = Symbol('waiting');

export function answerPeers(context: PeerRouteContext) {
  const { signatures, openHere, opening, asking, clock } = context;
  const open = async (upstream: string, digest: Digest): Promise<ContentReader | undefined> => {
    // A fetch that fails rejects here, too. The other node then asks upstream itself, and is told why.
    const reader = await openHere(upstream, digest).catch(() => undefined);
    const isOpening = reader === undefined ? opening(upstream, digest) : undefined;
    if (isOpening === undefined) return reader;
    await isOpening;
    await setImmediate(); // for those who take the bytes over
    return openHere(upstream, digest).catch(() => undefined);
  };
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = request.url ?? '';
    const asked = parsePeerPath(path);
    const read = readHeaders(path, request.headers);
    if (asked === undefined || read === undefined || request.method !== 'GET')
      return void response.writeHead(404).end();
    if (!(await signatures.isFromMember(read.request, read.signature)))
      return void response.writeHead(401).end('this is for nodes of the same fleet only\n');
    if (asked.upstream === TAGS) {
      const isAsking = asking(asked.digest);
      if (isAsking !== undefined) await soon(isAsking, clock);
      return void response.writeHead(isAsking === undefined ? 404 : 202).end();
    }
    const isOpen = open(asked.upstream, asked.digest);
    const reader = await soon(isOpen, clock);
    if (reader === WAITING) void isOpen.then((late) => late?.close());
    if (reader === undefined || reader === WAITING)
      return void response.writeHead(reader === undefined ? 404 : 202).end();
    const { from, to = reader.size, nonce } = read.request;
    const end = Math.min(to, reader.size);
    try {
      response.writeHead(200, {
        [HEADERS.size]: String(reader.size),
        [HEADERS.signature]: await signatures.signAnswer(nonce, reader.size),
        'content-length': String(Math.max(0, end - from)),
      });
      response.flushHeaders(); // the first byte may still be on its way
      await pipeline(Readable.from(bytesOf(reader, from, end), { objectMode: false }), response);
    } catch {
      response.destroy(); // the other node sees that it is cut, and goes on elsewhere
    } finally {
      await reader.close();
    }
  };
}

async function soon<T>(work: Promise<T>, clock: Clock): Promise<T | typeof WAITING> {
  const over = new AbortController();
  const waiting = (): typeof WAITING => WAITING;
  const late = clock.sleep(WAIT_MS, over.signal).then(waiting, waiting); // rejects when the work was done in time
  try {
    return await Promise.race([work, late]);
  } finally {
    over.abort();
  }
}

async function* bytesOf(
  reader: ContentReader,
  from: number,
  end: number,
): AsyncGenerator<Buffer, void, undefined> {
  for (let at = from; at < end; ) {
    const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, end - at));
    // Up to the end of the whole: a reader keeps back what comes last, and a part's last bytes are not that.
    const read = await reader.read(piece, at, reader.size);
    at += read;
    yield piece.subarray(0, read);
  }
}
