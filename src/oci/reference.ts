/** Repository names, tags and references, after the grammars of the OCI distribution-spec ("Pulling manifests"). */
import type { Digest } from './digest.ts';
import { parseDigest } from './digest.ts';

declare const repositoryBrand: unique symbol;
declare const tagBrand: unique symbol;

/** A repository name without its registry host: `library/alpine`. */
export type Repository = string & { readonly [repositoryBrand]: never };

export type Tag = string & { readonly [tagBrand]: never };

/** The last part of a manifest's URL. A digest contains `:` and a tag cannot, so {@link isDigest} tells them apart. */
export type Reference = Tag | Digest;

// Limits the name alone to 255 characters. Many clients limit host, slash and name together to that (distribution-spec).
const REPOSITORY_MAX_LENGTH = 255;
const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

export function parseRepository(text: string): Repository | undefined {
  return text.length <= REPOSITORY_MAX_LENGTH && REPOSITORY.test(text) ? (text as Repository) : undefined;
}

export function parseTag(text: string): Tag | undefined {
  return TAG.test(text) ? (text as Tag) : undefined;
}

export function parseReference(text: string): Reference | undefined {
  return text.includes(':') ? parseDigest(text) : parseTag(text);
}

export function isDigest(reference: Reference): reference is Digest {
  return reference.includes(':');
}

/** Compiles a pattern of image names, `host/repository:tag` or `host/repository@digest`. `*` matches any text. */
export function imagePattern(pattern: string): RegExp {
  const escaped = pattern.split('*').map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`^${escaped.join('.*')}$`);
}

/**
 * The query of one page of tags or referrers: `n`, `last`, `artifactType`, and everything else that the registry has put
 * into the `Link` of the page before. In the form of URLSearchParams; empty for the first page.
 */
export type ListQuery = string;
