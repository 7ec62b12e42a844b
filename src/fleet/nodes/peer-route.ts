/** Answers other nodes of the fleet, and nobody else, with what this node has of a blob or gets right now. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ContentReader } from '../../cache/store/content-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { CHAIN_LONGEST, type Follower, type Followers } from './followers.ts';
import { HEADERS, parsePeerPath, readHeaders } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeerRouteContext {
  signatures: PeerSignatures;
  followers: Followers;
  /** @param upstream as all nodes call it */
  openHere: OpenHere;
}

/**
 * Opens what is here, stored or coming in. Begins nothing.
 *
 * @param fromNodes also what itself comes in from another node
 */
export type OpenHere = (
  upstream: string,
  digest: Digest,
  fromNodes: boolean,
) => Promise<ContentReader | undefined>;

const PIECE_BYTES = 256 * 1024;

export function answerPeers({ signatures, followers, openHere }: PeerRouteContext) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = request.url ?? '';
    const asked = parsePeerPath(path);
    const read = readHeaders(path, request.headers);
    if (asked === undefined || read === undefined || request.method !== 'GET')
      return void response.writeHead(404).end();
    if (!(await signatures.isFromMember(read.request, read.signature)))
      return void response.writeHead(401).end('this is for nodes of the same fleet only\n');
    const { node, chain, nonce } = read.request;
    if (chain.includes(node) || chain.length > CHAIN_LONGEST) return void response.writeHead(404).end();
    const next = followers.next(read.request);
    if (next !== undefined) {
      const text = JSON.stringify(next);
      const signature = await signatures.signAnswer(nonce, text);
      return void response.writeHead(307, { [HEADERS.next]: text, [HEADERS.signature]: signature }).end();
    }
    const { follower, leave } = followers.add(read.request);
    response.once('close', leave);
    const isSentHere = followers.isSentHere(read.request);
    // A fetch that fails rejects here, too. The other node then asks upstream itself, and is told why.
    const reader = await openHere(asked.upstream, asked.digest, isSentHere).catch(() => undefined);
    if (reader === undefined) {
      leave();
      return void response.writeHead(404).end();
    }
    const { from, to = reader.size } = read.request;
    const end = Math.min(to, reader.size);
    const size = String(reader.size);
    try {
      response.writeHead(200, {
        [HEADERS.size]: size,
        [HEADERS.signature]: await signatures.signAnswer(nonce, size),
        'content-length': String(Math.max(0, end - from)),
      });
      response.flushHeaders(); // the first byte may still be on its way
      await pipeline(Readable.from(bytesOf(reader, follower, end), { objectMode: false }), response);
    } catch {
      response.destroy(); // the other node sees that it is cut, and goes on elsewhere
    } finally {
      leave();
      await reader.close();
    }
  };
}

async function* bytesOf(
  reader: ContentReader,
  follower: Follower,
  end: number,
): AsyncGenerator<Buffer, void, undefined> {
  while (follower.at < end) {
    const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, end - follower.at));
    // Up to the end of the whole: a reader keeps back what comes last, and a part's last bytes are not that.
    const read = await reader.read(piece, follower.at, reader.size);
    follower.at += read;
    yield piece.subarray(0, read);
  }
}
