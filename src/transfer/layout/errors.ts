/** What can be wrong with an image layout archive. */

export type LayoutErrorCode =
  /** No tar, or one that is damaged. */
  | 'not-a-tar'
  /** It ends before its end. */
  | 'truncated'
  /** What `docker save` wrote before Docker 25. */
  | 'docker-archive'
  /** A tar without `oci-layout` or `index.json`. */
  | 'not-a-layout'
  | 'unsupported-version'
  | 'bad-index'
  /** A path that leads out of the archive, or the file of a blob that is not named by a digest. */
  | 'bad-name'
  /** A link, a device or a folder where a file belongs. */
  | 'not-a-file'
  /** One path twice, with different content. */
  | 'duplicate'
  /** A blob has another size than was said. */
  | 'wrong-size'
  /** The bytes of a blob are not those that its digest names. */
  | 'wrong-digest'
  | 'too-large'
  | 'too-many-entries'
  /** An image is to be written whose manifest is neither in this archive nor in an earlier one. */
  | 'missing-blob';

/** An archive that is not read or written to its end. The message says what to do. */
export class LayoutError extends Error {
  override readonly name = 'LayoutError';
  readonly code: LayoutErrorCode;

  constructor(code: LayoutErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}

/** Who writes archives that can be read. */
export const HOW_TO_WRITE =
  'write it with docker save of Docker 25 or newer, podman save --format oci-archive, or skopeo copy … oci-archive:FILE';

/** What an archive says, for a message: short, and nothing that could forge a log line. */
export function printable(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
