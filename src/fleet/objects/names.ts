/**
 * The names of objects in the store, below the fleet's prefix.
 *
 *     fleet.json                                             what wrote here, and who may read it
 *     blobs/sha256/ab/ab12…                                  content by digest, manifests too
 *     repositories/<upstream>/<repository>/_manifests/<digest>   the repository may serve this manifest
 *     repositories/<upstream>/<repository>/_tags/<tag>       what a tag meant when it last moved
 *
 * A component of a repository's name never begins with `_` (OCI distribution-spec, pulling manifests), so that no
 * repository can take the place of a record of another.
 */
import { createHash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../oci/digest.ts';
import { parseRepository, parseTag, type Repository, type Tag } from '../../oci/reference.ts';

export const FLEET_FILE = 'fleet.json';
export const CONTENT_PREFIX = 'blobs/';
export const RECORDS_PREFIX = 'repositories/';

/** A repository, as all nodes whose upstream is the same name it. */
export interface SharedRepository {
  /** See {@link upstreamKey}. */
  upstream: string;
  repository: Repository;
}

export function contentName(digest: Digest): string {
  const hex = digestHex(digest);
  return `${CONTENT_PREFIX}${digestAlgorithm(digest)}/${hex.slice(0, 2)}/${hex}`;
}

/** @returns undefined if an object of this name is not content */
export function contentDigest(name: string): Digest | undefined {
  const [, algorithm, hex] = /^blobs\/(sha\d+)\/[0-9a-f]{2}\/([0-9a-f]+)$/.exec(name) ?? [];
  const digest = parseDigest(`${algorithm}:${hex}`);
  return digest !== undefined && contentName(digest) === name ? digest : undefined;
}

export function manifestsPrefix({ upstream, repository }: SharedRepository): string {
  return `repositories/${upstream}/${repository}/_manifests/`;
}

export function manifestName(repository: SharedRepository, digest: Digest): string {
  return `${manifestsPrefix(repository)}${digest}`;
}

/** @returns what a record of this name is about; undefined: it is none of ours */
export function parseRecordName(
  name: string,
): { kind: 'manifest'; digest: Digest } | { kind: 'tag' } | undefined {
  const [, repository = '', kind, last = ''] =
    /^repositories\/[0-9a-f]{32}\/(.+)\/_(manifests|tags)\/([^/]+)(?:\/[0-9a-f]{32})?$/.exec(name) ?? [];
  if (parseRepository(repository) === undefined) return undefined;
  if (kind === 'tags') return parseTag(last) === undefined ? undefined : { kind: 'tag' };
  const digest = parseDigest(last);
  return digest !== undefined && name.endsWith(digest) ? { kind: 'manifest', digest } : undefined;
}

/** @param accept the manifest types that a client insists on; empty: what upstream sends by default */
export function tagName({ upstream, repository }: SharedRepository, tag: Tag, accept: string): string {
  const variant = accept === '' ? '' : `/${createHash('sha256').update(accept).digest('hex').slice(0, 32)}`;
  return `repositories/${upstream}/${repository}/_tags/${tag}${variant}`;
}

/**
 * Names an upstream for all nodes. Nodes share tags and permissions only if their upstreams are the same: name, URL and
 * who logs in there.
 *
 * @param identity who logs in, never a secret; empty: nobody
 */
export function upstreamKey(upstream: { name: string; url: string; identity: string }): string {
  const { name, url, identity } = upstream;
  return createHash('sha256')
    .update(JSON.stringify([name, url, identity]))
    .digest('hex')
    .slice(0, 32);
}
