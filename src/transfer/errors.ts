/** What can be wrong with an image layout archive, and with an image that is to be moved. */
import type { Descriptor } from '../oci/manifest.ts';

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

export type ImageErrorCode =
  /** No image name by the grammar, or none at all. */
  | 'bad-name'
  | 'unknown-upstream'
  | 'not-cached'
  /** Some of what it needs is not here. */
  | 'incomplete'
  /** It is not for a platform that was chosen. */
  | 'no-platform'
  /** It was fetched, and the disk did not take it. */
  | 'not-stored'
  /** Upstream could not say what the tag means now. */
  | 'unconfirmed';

/** Why one image is not warmed, exported or imported. The message says what to do. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** @param listed what the index has instead */
export function noPlatform(
  label: string,
  absent: readonly string[],
  listed: readonly Descriptor[],
): ImageError {
  const has = [...new Set(listed.flatMap(({ platform }) => platform ?? []))].join(', ');
  return new ImageError(
    'no-platform',
    `${label} is not for ${absent.join(', ')}: it is for ${has || 'none'}`,
  );
}

/** Who writes archives that can be read. */
export const HOW_TO_WRITE =
  'write it with docker save of Docker 25 or newer, podman save --format oci-archive, or skopeo copy … oci-archive:FILE';

/** What an archive says, for a message: short, and nothing that could forge a log line. */
export function printable(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
