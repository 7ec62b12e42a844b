/** Finds out which image of which upstream a name means. */
import type { RepositoryKey } from '../cache/index/index-store.ts';
import { formatImageName, type ImageName, parseImageName } from '../oci/image-name.ts';
import { parseTag, type Reference, type Tag } from '../oci/reference.ts';
import { ImageError } from './errors.ts';
import { printable } from './layout/errors.ts';

export interface RequestedImage {
  /** The full name: the upstream's own name as its host, and either a tag or a digest. */
  name: ImageName;
  key: RepositoryKey;
  reference: Reference;
}

/** Finds the name of the configured upstream that a host in an image name means. */
export type UpstreamOf = (host: string) => string | undefined;

const DEFAULT_TAG = parseTag('latest') as Tag;

/** @throws {ImageError} `bad-name`, `unknown-upstream` */
export function requestedImage(text: string, upstreamOf: UpstreamOf): RequestedImage {
  const name = parseImageName(text);
  if (name !== undefined) return imageOf(name, upstreamOf);
  const message = `${printable(text)} is not an image name: write it like docker.io/library/alpine:3.20`;
  throw new ImageError('bad-name', message);
}

/**
 * Follows Docker's rules: with a tag and a digest the digest counts, and with neither the tag is `latest`.
 *
 * @throws {ImageError} `unknown-upstream`
 */
export function imageOf(
  { host, repository, tag, digest }: ImageName,
  upstreamOf: UpstreamOf,
): RequestedImage {
  const upstream = upstreamOf(host);
  if (upstream === undefined) {
    const what = formatImageName({ host, repository, ...(tag === undefined ? {} : { tag }) });
    const message = `${host}, the registry of ${what}, is not a configured upstream: add it under upstreams: in the configuration`;
    throw new ImageError('unknown-upstream', message);
  }
  const reference = digest ?? tag ?? DEFAULT_TAG;
  return {
    name: {
      host: upstream,
      repository,
      ...(digest === undefined ? { tag: tag ?? DEFAULT_TAG } : { digest }),
    },
    key: { upstream, repository },
    reference,
  };
}
