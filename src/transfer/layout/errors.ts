/** Why an image layout archive cannot be read or written. */

export type LayoutErrorCode =
  /** It is not a tar, or a damaged one. */
  | 'not-a-tar'
  /** Its end is missing. */
  | 'truncated'
  /** The format of `docker save` before Docker 25, and of `podman save` by default. */
  | 'docker-archive'
  /** It is a tar without `oci-layout` or `index.json`. */
  | 'not-a-layout'
  | 'unsupported-version'
  | 'bad-index'
  /** A path leads out of the archive, or a file under `blobs/` is not named after a digest. */
  | 'bad-name'
  /** A link, a device or a folder is in the place of a file. */
  | 'not-a-file'
  /** One path occurs twice, with different content. */
  | 'duplicate'
  /** A blob does not have the size that was stated for it. */
  | 'wrong-size'
  /** The bytes of a blob do not match its digest. */
  | 'wrong-digest'
  | 'too-large'
  | 'too-many-entries'
  /** The manifest of an image is neither among the blobs to write nor in an earlier archive. */
  | 'missing-blob';

/** An archive cannot be read or written to its end. The message says why, and what to do. */
export class LayoutError extends Error {
  override readonly name = 'LayoutError';
  readonly code: LayoutErrorCode;

  constructor(code: LayoutErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** Advice for the messages about archives of another format. */
export const HOW_TO_WRITE =
  'write it with docker save of Docker 25 or newer, podman save --format oci-archive, or skopeo copy … oci-archive:FILE';

/**
 * Quotes text of an archive or a client for a message. It is cut to 100 characters, and escaped so that it cannot forge
 * a log line.
 */
export function printable(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
