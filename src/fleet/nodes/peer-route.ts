/** Answers other nodes of the fleet, and nobody else, with what this node has of a blob or gets right now. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ContentReader } from '../../cache/store/content-store.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Repository } from '../../oci/reference.ts';
import { HEADERS, parsePeerPath, readHeaders } from './peer-requests.ts';
import type { PeerSignatures } from './peer-signatures.ts';

export interface PeerRouteContext {
  signatures: PeerSignatures;
  /**
   * Opens what is here, stored or coming in, and gives nothing that itself comes from another node: no circle.
   *
   * @param upstream as all nodes call it
   * @param fetchFrom asks upstream for it, and no third node, if it is not here. Undefined: begins nothing
   */
  openHere: (upstream: string, digest: Digest, fetchFrom?: Repository) => Promise<ContentReader | undefined>;
}

const PIECE_BYTES = 256 * 1024;

export function answerPeers({ signatures, openHere }: PeerRouteContext) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = request.url ?? '';
    const asked = parsePeerPath(path);
    const read = readHeaders(path, request.headers);
    if (asked === undefined || read === undefined || request.method !== 'GET')
      return void response.writeHead(404).end();
    if (!(await signatures.isFromMember(read.request, read.signature)))
      return void response.writeHead(401).end('this is for nodes of the same fleet only\n');
    // A fetch that fails rejects here, too. The other node then asks upstream itself, and is told why.
    const reader = await openHere(asked.upstream, asked.digest, asked.fetchFrom).catch(() => undefined);
    if (reader === undefined) return void response.writeHead(404).end();
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
