/** Answers other nodes of the fleet, and nobody else, with what this node has of a blob or gets right now. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ContentReader } from '../../cache/store/content-store.ts';
import type { Digest } from '../../oci/digest.ts';
import { callPath, HEADERS, parsePeerPath, readHeaders } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeerRouteContext {
  /** The id of this node. */
  ownId: string;
  signatures: PeerSignatures;
  /**
   * Opens what is here, stored or coming in. Begins nothing, and gives nothing that itself comes from another node: no
   * circle.
   *
   * @param upstream as all nodes call it
   */
  openHere: (upstream: string, digest: Digest) => Promise<ContentReader | undefined>;
}

const PIECE_BYTES = 256 * 1024;

export function answerPeers({ ownId, signatures, openHere }: PeerRouteContext) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = request.url ?? '';
    const isCall = path === callPath(ownId);
    const asked = isCall ? undefined : parsePeerPath(path);
    const read = readHeaders(path, request.headers);
    if (!(isCall || asked !== undefined) || read === undefined || request.method !== 'GET')
      return void response.writeHead(404).end();
    if (!(await signatures.isFromMember(read.request, read.signature)))
      return void response.writeHead(401).end('this is for nodes of the same fleet only\n');
    const { from, to, nonce } = read.request;
    const head = async (size: number) => ({
      [HEADERS.size]: String(size),
      [HEADERS.signature]: await signatures.signAnswer(nonce, size),
    });
    if (asked === undefined)
      return void response.writeHead(200, { ...(await head(0)), 'content-length': '0' }).end();
    // A fetch that fails rejects here, too. The other node then asks upstream itself, and is told why.
    const reader = await openHere(asked.upstream, asked.digest).catch(() => undefined);
    if (reader === undefined) return void response.writeHead(404).end();
    const end = Math.min(to ?? reader.size, reader.size);
    try {
      response.writeHead(200, {
        ...(await head(reader.size)),
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
