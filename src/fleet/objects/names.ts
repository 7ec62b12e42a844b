/**
 * The names of objects in the store, below the fleet's prefix.
 *
 *     fleet.json                                             what wrote here, and who may read it
 *     blobs/sha256/ab/ab12…                                  content by digest, manifests too
 *     repositories/<upstream>/<repository>/_manifests/<digest>   the repository may serve this manifest
 *     repositories/<upstream>/<repository>/_tags/<tag>       what a tag meant when it last moved
 *     journal/<number>                                       what was removed or sealed, in turn
 *
 * A component of a repository's name never begins with `_` (OCI distribution-spec, pulling manifests), so that no
 * repository can take the place of a record of another.
 */
import { createHash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../oci/digest.ts';
import type { Repository, Tag } from '../../oci/reference.ts';

export const FLEET_FILE = 'fleet.json';
export const CONTENT_PREFIX = 'blobs/';
export const JOURNAL_PREFIX = 'journal/';
export const REPOSITORIES_PREFIX = 'repositories/';
const NUMBER_DIGITS = 12;

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

/** Begins the names of all records of a repository, and of nothing else. */
export function recordsPrefix({ upstream, repository }: SharedRepository): string {
  return `repositories/${upstream}/${repository}/_`;
}

export function journalName(number: number): string {
  return `${JOURNAL_PREFIX}${String(number).padStart(NUMBER_DIGITS, '0')}`;
}

/** @returns undefined if an object of this name is no entry of the journal */
export function journalNumber(name: string): number | undefined {
  const number = Number(/^journal\/(\d+)$/.exec(name)?.[1]);
  return Number.isSafeInteger(number) && journalName(number) === name ? number : undefined;
}

/** What a record is about. */
export interface RecordSubject {
  /** See {@link upstreamKey}. */
  upstream: string;
  repository: string;
  /** `:` and a tag, or `@` and the digest of a manifest. */
  of: string;
}

/** @returns undefined if an object of this name is no record of a repository */
export function recordSubject(name: string): RecordSubject | undefined {
  const [, upstream, repository, kind, what] =
    /^repositories\/([^/]+)\/(.+)\/_(tags|manifests)\/([^/]+)/.exec(name) ?? [];
  if (upstream === undefined || repository === undefined) return undefined;
  return { upstream, repository, of: `${kind === 'tags' ? ':' : '@'}${what}` };
}

export function manifestsPrefix({ upstream, repository }: SharedRepository): string {
  return `repositories/${upstream}/${repository}/_manifests/`;
}

export function manifestName(repository: SharedRepository, digest: Digest): string {
  return `${manifestsPrefix(repository)}${digest}`;
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
