/** Why an image cannot be warmed, exported or imported. */
import type { Descriptor } from '../oci/manifest.ts';
import { PolicyError, UndecidedError } from '../policy/errors.ts';

export type ImageErrorCode =
  /** The image has no name, or one that breaks the grammar of image names. */
  | 'bad-name'
  /** The registry in the name is not a configured upstream. */
  | 'unknown-upstream'
  | 'not-cached'
  /** Some of the content that the image needs is missing. */
  | 'incomplete'
  /** The image does not exist for a platform that was chosen. */
  | 'no-platform'
  /** It was fetched, but not stored: the cache is too small, or the disk is full. */
  | 'not-stored'
  /** Upstream could not say what the tag means now. */
  | 'unconfirmed'
  /** A policy does not let it in. */
  | 'refused';

/** One image cannot be warmed, exported or imported. The message says why, and what to do. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * @param label the image's name
 * @param absent the chosen platforms that the index does not list
 * @param listed what the index lists
 */
export function noPlatform(
  label: string,
  absent: readonly string[],
  listed: readonly Descriptor[],
): ImageError {
  const existing = [...new Set(listed.flatMap(({ platform }) => platform ?? []))].join(', ');
  const advice = existing === '' ? 'its index names no platforms' : `choose from ${existing}`;
  return new ImageError('no-platform', `${label} does not exist for ${absent.join(', ')}: ${advice}`);
}

const NAMED_MISSING = 3;

/** Lists what is missing, in one line: the first three by name, the others as a number. */
export function listMissing(missing: ReadonlySet<string>): string {
  const more = missing.size > NAMED_MISSING ? ` and ${missing.size - NAMED_MISSING} more` : '';
  return [...missing].slice(0, NAMED_MISSING).join(', ') + more;
}

/** Why policies do not let something in. Every other error is thrown. @returns undefined if they do */
export async function policyRefusal(required: Promise<void>): Promise<Error | undefined> {
  try {
    await required;
    return undefined;
  } catch (error) {
    if (error instanceof PolicyError || error instanceof UndecidedError) return error;
    throw error;
  }
}
