/**
 * The door: a request line becomes one typed value, or is refused before anything else happens.
 *
 * Names are parsed from the right, because a repository may be called `a/blobs/b`, and checked against the grammars of
 * the spec; the world is closed: a registry host that is not configured leads nowhere.
 */
import { LRUCache } from 'lru-cache';
import { type Digest, parseDigest } from '../../oci/digest.ts';
import { RegistryError } from '../../oci/errors.ts';
import {
  type ListQuery,
  parseReference,
  parseRepository,
  type Reference,
  type Repository,
} from '../../oci/reference.ts';

/** Which upstream a name means. */
export interface RoutingTable {
  /** The upstream for a bare `/v2/<name>`. */
  defaultUpstream: string;
  /** Upstreams by name and by alias, as image references and `ns` spell them. */
  upstreamByHost: ReadonlyMap<string, string>;
  /** Upstreams by the `Host` header of virtual hosts. */
  upstreamByVirtualHost: ReadonlyMap<string, string>;
}

interface Target {
  upstream: string;
  repository: Repository;
  /** The `ns` the client sent, to be echoed in `OCI-Namespace`. */
  namespace?: string;
}

export type PullRequest = Target &
  (
    | { kind: 'manifest'; reference: Reference }
    | { kind: 'blob'; digest: Digest }
    | { kind: 'tags'; query: ListQuery }
    | { kind: 'referrers'; digest: Digest; query: ListQuery }
  );

/** `/v2/` itself: clients ask it to find out whether this is a registry at all. */
export interface PingRequest {
  kind: 'ping';
}

const DOCKER_HUB = 'docker.io';

/** Request lines that are remembered, and the longest of them: 2 MB at most. */
const REMEMBERED_LINES = 4096;
const REMEMBERED_LENGTH = 512;

/** Parses request lines as {@link parseRequest} does, and the recent ones only once: 2 µs less of the 30 of a warm manifest. */
export class RequestParser {
  readonly #table: RoutingTable;
  readonly #recent = new LRUCache<string, Readonly<PullRequest> | PingRequest>({ max: REMEMBERED_LINES });

  constructor(table: RoutingTable) {
    this.#table = table;
  }

  /** @throws {RegistryError} as {@link parseRequest} */
  parse(url: string, host: string | undefined): Readonly<PullRequest> | PingRequest {
    const line = `${url} ${host ?? ''}`; // a url holds no space
    const recent = this.#recent.get(line);
    if (recent !== undefined) return recent;
    const request = parseRequest(url, host, this.#table);
    if (line.length <= REMEMBERED_LENGTH) this.#recent.set(line, request);
    return request;
  }
}

/**
 * @param url path and query, as in the request line
 * @param host the `Host` header
 * @throws {RegistryError} the path is none of the registry API's, a name is malformed, or its registry is not configured
 */
export function parseRequest(
  url: string,
  host: string | undefined,
  table: RoutingTable,
): PullRequest | PingRequest {
  const queryStart = url.indexOf('?');
  const path = queryStart < 0 ? url : url.slice(0, queryStart);
  const query = new URLSearchParams(queryStart < 0 ? '' : url.slice(queryStart + 1));
  const segments = path.split('/').slice(1).map(decodeSegment);
  const prefix = segments[0] === 'v2' ? undefined : segments.shift();
  if (segments.shift() !== 'v2') throw noSuchRoute();
  if (segments.length === 0 || (segments.length === 1 && segments[0] === '')) {
    if (prefix !== undefined) lookUp(prefix, table);
    return { kind: 'ping' };
  }
  const { name, resource } = split(segments);
  const target = resolveTarget(name, { prefix, host, namespaces: query.getAll('ns') }, table);
  return { ...target, ...parseResource(resource, query) };
}

type Resource =
  | { kind: 'manifest'; reference: string }
  | { kind: 'blob' | 'referrers'; digest: string }
  | { kind: 'tags' };

/** Splits `<name>/manifests/<reference>` and its like, looking from the right. */
function split(segments: string[]): { name: string[]; resource: Resource } {
  const last = segments.at(-1) ?? '';
  const name = segments.slice(0, -2);
  const kind = segments.at(-2);
  if (name.length > 0) {
    if (kind === 'manifests') return { name, resource: { kind: 'manifest', reference: last } };
    if (kind === 'blobs') return { name, resource: { kind: 'blob', digest: last } };
    if (kind === 'referrers') return { name, resource: { kind: 'referrers', digest: last } };
    if (kind === 'tags' && last === 'list') return { name, resource: { kind: 'tags' } };
  }
  throw noSuchRoute();
}

function parseResource(resource: Resource, query: URLSearchParams) {
  switch (resource.kind) {
    case 'manifest':
      return { kind: resource.kind, reference: requireReference(resource.reference) };
    case 'blob':
      return { kind: resource.kind, digest: requireDigest(resource.digest) };
    case 'referrers':
      return { kind: resource.kind, digest: requireDigest(resource.digest), query: requireListQuery(query) };
    case 'tags':
      return { kind: resource.kind, query: requireListQuery(query) };
  }
}

/** All of it but `ns`, which is ours: only upstream knows what its `Link` put into the query of the next page. */
function requireListQuery(query: URLSearchParams): ListQuery {
  const n = query.get('n');
  if (n !== null && !/^\d{1,9}$/.test(n)) {
    throw new RegistryError('PAGINATION_NUMBER_INVALID', { message: 'n must be a whole number, 0 or more' });
  }
  const rest = new URLSearchParams([...query].filter(([name]) => name !== 'ns'));
  return rest.toString();
}

interface Hints {
  /** The path segment before `/v2`. */
  prefix: string | undefined;
  host: string | undefined;
  namespaces: string[];
}

/** Every way in that names a registry must name the same one; the first path segment is stripped if it names it too. */
function resolveTarget(segments: string[], hints: Hints, table: RoutingTable): Target {
  const [namespace] = hints.namespaces;
  const virtual =
    hints.host === undefined ? undefined : table.upstreamByVirtualHost.get(hints.host.toLowerCase());
  const named = [
    ...hints.namespaces.map((value) => lookUp(value, table)),
    ...(hints.prefix === undefined ? [] : [lookUp(hints.prefix, table)]),
    ...(virtual === undefined ? [] : [virtual]),
  ];
  let name = segments;
  const first = segments[0] ?? '';
  if (
    segments.length > 1 &&
    (table.upstreamByHost.has(first) || (named.length === 0 && looksLikeHost(first)))
  ) {
    named.push(lookUp(first, table));
    name = segments.slice(1);
  }
  const upstream = named[0] ?? table.defaultUpstream;
  const other = named.find((candidate) => candidate !== upstream);
  if (other !== undefined) {
    throw new RegistryError('NAME_INVALID', {
      message: `the request names two registries: ${upstream} and ${other}`,
    });
  }
  return {
    upstream,
    repository: requireRepository(name, upstream),
    ...(namespace === undefined ? {} : { namespace }),
  };
}

/** As docker tells a registry host from the first part of a name: by a dot, a port, or "localhost". */
function looksLikeHost(segment: string): boolean {
  return /^(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(:\d+)?$/i.test(segment);
}

function lookUp(host: string, table: RoutingTable): string {
  const upstream = table.upstreamByHost.get(host.toLowerCase());
  if (upstream !== undefined) return upstream;
  throw new RegistryError('NAME_UNKNOWN', {
    message: `${printable(host)} is not an upstream of this mirror: add it under upstreams: in its configuration`,
  });
}

function requireRepository(segments: string[], upstream: string): Repository {
  const isOfficial = upstream === DOCKER_HUB && segments.length === 1;
  const name = isOfficial ? `library/${segments[0]}` : segments.join('/');
  const repository = parseRepository(name);
  if (repository !== undefined) return repository;
  throw new RegistryError('NAME_INVALID', {
    message: `${printable(name)} is no repository name: lower-case letters, digits and . _ - between them, 255 characters at most`,
  });
}

function requireReference(text: string): Reference {
  const reference = parseReference(text);
  if (reference !== undefined) return reference;
  if (text.includes(':')) throw invalidDigest(text);
  throw new RegistryError('TAG_INVALID', {
    message: `${printable(text)} is no tag: letters, digits and . _ -, 128 characters at most, not beginning with . or -`,
  });
}

function requireDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest === undefined) throw invalidDigest(text);
  return digest;
}

function invalidDigest(text: string): RegistryError {
  return new RegistryError('DIGEST_INVALID', {
    message: `${printable(text)} is no digest: sha256: and 64, or sha512: and 128 lower-case hexadecimal digits`,
  });
}

function noSuchRoute(): RegistryError {
  return new RegistryError('UNSUPPORTED', {
    status: 404,
    message: 'no such route: this mirror serves /v2/<name>/ manifests, blobs, tags/list and referrers',
  });
}

/** A segment that holds an encoded slash or is not UTF-8 can be no name; the grammars refuse everything else. */
function decodeSegment(segment: string): string {
  if (!segment.includes('%')) return segment;
  try {
    const decoded = decodeURIComponent(segment);
    if (!decoded.includes('/')) return decoded;
  } catch {
    // falls through to the refusal
  }
  throw new RegistryError('NAME_INVALID', { message: `${printable(segment)} cannot be part of a name` });
}

/** Client input for a message: short, and nothing that could forge a log line. */
function printable(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
