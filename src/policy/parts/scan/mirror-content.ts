/** Gives a scanner the blobs of an image through the mirror, past the door, so that the scan shares the one download. */
import type { BlobMirror } from '../../../mirror/blobs/blob-mirror.ts';
import type { MirroredUpstream } from '../../../mirror/mirrored-upstream.ts';
import type { Digest } from '../../../oci/digest.ts';
import type { RequestContext } from '../../../request-context.ts';
import type { Subject } from '../part.ts';
import type { QuarantineBlob, QuarantineContent } from './quarantine/content.ts';

const PIECE_BYTES = 64 * 1024;

export class MirrorContent implements QuarantineContent {
  readonly #subject: Subject;
  readonly #upstream: MirroredUpstream;
  readonly #blobs: Pick<BlobMirror, 'open'>;
  readonly #request: RequestContext;

  constructor(
    subject: Subject,
    upstream: MirroredUpstream,
    blobs: Pick<BlobMirror, 'open'>,
    request: RequestContext,
  ) {
    this.#subject = subject;
    this.#upstream = upstream;
    this.#blobs = blobs;
    this.#request = request;
  }

  async blob(digest: Digest): Promise<QuarantineBlob | undefined> {
    const { client, segments } = this.#upstream;
    const { repository } = this.#subject;
    const { content } = await this.#blobs.open({
      ...{ context: this.#request, upstream: client, segments, repository, digest },
    });
    const { size } = content;
    return {
      size,
      close: () => content.close(),
      async *stream(start) {
        for (let at = start; at < size; ) {
          const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, size - at));
          const length = await content.read(piece, at, size);
          at += length;
          yield piece.subarray(0, length);
        }
      },
    };
  }
}
