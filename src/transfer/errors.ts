/** What can be wrong with an image that is to be moved. */
import type { Descriptor } from '../oci/manifest.ts';

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
