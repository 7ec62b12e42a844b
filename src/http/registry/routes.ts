/**
 * Parses a request line into one typed value, or refuses it before anything else happens.
 *
 * Parses names from the right, because a repository may be called `a/blobs/b`. Checks them against the grammars of the
 * distribution spec. Refuses every registry host that is not configured, so that nobody can use the mirror as an open
 * proxy.
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

/** Says which upstream a name means. */
export interface RoutingTable {
  /** The upstream for a bare `/v2/<name>`. */
  defaultUpstream: string;
  /** Upstreams by name and by alias, as image references and `ns` spell them; in lower case. */
  upstreamByHost: ReadonlyMap<string, string>;
  /** Upstreams by the `Host` header of virtual hosts; in lower case. */
  upstreamByVirtualHost: ReadonlyMap<string, string>;
}

interface Target {
  upstream: string;
  repository: Repository;
  /** The `ns` that the client sent. The reply repeats it in `OCI-Namespace`. */
  namespace?: string;
}

export interface ManifestRequest extends Target {
  kind: 'manifest';
  reference: Reference;
}

export interface BlobRequest extends Target {
  kind: 'blob';
  digest: Digest;
}

export interface TagsRequest extends Target {
  kind: 'tags';
  query: ListQuery;
}

export interface ReferrersRequest extends Target {
  kind: 'referrers';
  digest: Digest;
  query: ListQuery;
}

export type PullRequest = ManifestRequest | BlobRequest | TagsRequest | ReferrersRequest;

/** `/v2/` itself: clients send it to find out whether this is a registry. */
export interface PingRequest {
  kind: 'ping';
}

/** A step of pushing a blob. Its name is checked like any other, so that a wrong name is reported first. */
interface UploadRequest extends Target {
  kind: 'upload';
}

export type RegistryRequest = PullRequest | PingRequest | UploadRequest;

const DOCKER_HUB = 'docker.io';

/** How many request lines are remembered, and how long each may be: at most 2 MB together. */
const REMEMBERED_LINES = 4096;
const REMEMBERED_LENGTH = 512;

/**
 * Parses request lines as {@link parseRequest} does, and remembers the recent ones: without this a hit costs 1.07 times
 * the CPU.
 */
export class RequestParser {
  readonly #table: RoutingTable;
  readonly #recent = new LRUCache<string, Readonly<RegistryRequest>>({ max: REMEMBERED_LINES });

  constructor(table: RoutingTable) {
    this.#table = table;
  }

  /** @throws {RegistryError} as {@link parseRequest} */
  parse(url: string, host: string | undefined): Readonly<RegistryRequest> {
    const line = `${url} ${host ?? ''}`; // a space cannot be part of a URL
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
 * @throws {RegistryError} 404 if the path is not a route of a registry, 400 if a name is malformed, then 404 if its
 * registry is not configured
 */
export function parseRequest(url: string, host: string | undefined, table: RoutingTable): RegistryRequest {
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
  const { name, asked } = parseRoute(segments, query);
  const target = resolveTarget(name, { prefix, host, namespaces: query.getAll('ns') }, table);
  return { ...target, ...asked };
}

/** Parses `<name>/manifests/<reference>` and the other routes, from the right. */
function parseRoute(segments: string[], query: URLSearchParams) {
  const name = segments.slice(0, -2);
  const [route = '', last = ''] = segments.slice(-2);
  if (name.length > 0) {
    switch (route) {
      case 'manifests':
        return { name, asked: { kind: 'manifest', reference: requireReference(last) } } as const;
      case 'blobs':
        return { name, asked: { kind: 'blob', digest: requireDigest(last) } } as const;
      case 'referrers': {
        const asked = {
          kind: 'referrers',
          digest: requireDigest(last),
          query: requireListQuery(query),
        } as const;
        return { name, asked };
      }
      case 'tags':
        if (last === 'list')
          return { name, asked: { kind: 'tags', query: requireListQuery(query) } } as const;
        break;
      case 'uploads':
        if (name.length > 1 && name.at(-1) === 'blobs')
          return { name: name.slice(0, -1), asked: { kind: 'upload' } } as const;
    }
  }
  throw noSuchRoute();
}

/**
 * Keeps the whole query except `ns`, which is meant for us: only upstream knows what its `Link` put into the query of
 * the next page.
 */
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

/**
 * Finds the upstream. All parts of the request that name a registry must name the same one. The first path segment is
 * removed if it names it too.
 */
function resolveTarget(segments: string[], hints: Hints, table: RoutingTable): Target {
  const { prefix, host, namespaces } = hints;
  const virtual = host === undefined ? undefined : table.upstreamByVirtualHost.get(host.toLowerCase());
  const hosts = prefix === undefined ? [...namespaces] : [...namespaces, prefix];
  const [first = ''] = segments;
  const isNamed = hosts.length > 0 || virtual !== undefined;
  const beginsWithHost =
    segments.length > 1 && (table.upstreamByHost.has(first) || (!isNamed && looksLikeHost(first)));
  if (beginsWithHost) hosts.push(first);
  const name = requireRepository((beginsWithHost ? segments.slice(1) : segments).join('/'));

  const named = hosts.map((each) => lookUp(each, table));
  if (virtual !== undefined) named.push(virtual);
  const upstream = named[0] ?? table.defaultUpstream;
  const other = named.find((candidate) => candidate !== upstream);
  if (other !== undefined) {
    throw new RegistryError('NAME_INVALID', {
      message: `the request names two registries: ${upstream} and ${other}`,
    });
  }
  const isOfficial = upstream === DOCKER_HUB && !name.includes('/');
  const [namespace] = namespaces;
  return {
    upstream,
    repository: isOfficial ? requireRepository(`library/${name}`) : name,
    ...(namespace === undefined ? {} : { namespace }),
  };
}

/** Recognises a registry host as docker does: by a dot, a port, or "localhost". */
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

function requireRepository(name: string): Repository {
  const repository = parseRepository(name);
  if (repository !== undefined) return repository;
  throw new RegistryError('NAME_INVALID', {
    message: `${printable(name)} is not a repository name: use lower-case letters, digits and . _ - between them, at most 255 characters`,
  });
}

function requireReference(text: string): Reference {
  const reference = parseReference(text);
  if (reference !== undefined) return reference;
  if (text.includes(':')) throw invalidDigest(text);
  throw new RegistryError('TAG_INVALID', {
    message: `${printable(text)} is not a tag: use letters, digits and . _ -, at most 128 characters, and do not begin with . or -`,
  });
}

function requireDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest === undefined) throw invalidDigest(text);
  return digest;
}

function invalidDigest(text: string): RegistryError {
  return new RegistryError('DIGEST_INVALID', {
    message: `${printable(text)} is not a digest: use sha256: and 64, or sha512: and 128 lower-case hexadecimal digits`,
  });
}

export function noSuchRoute(): RegistryError {
  return new RegistryError('UNSUPPORTED', {
    status: 404,
    message: 'no such route: this mirror serves /v2/<name>/ manifests, blobs, tags/list and referrers',
  });
}

/** Refuses an encoded slash and bytes that are not UTF-8. The grammars refuse everything else that is not a name. */
function decodeSegment(segment: string): string {
  if (!segment.includes('%')) return segment;
  try {
    const decoded = decodeURIComponent(segment);
    if (!decoded.includes('/')) return decoded;
  } catch {
    // refused below
  }
  throw new RegistryError('NAME_INVALID', {
    message: `${printable(segment)} cannot be part of a name: it holds an encoded slash, or is not UTF-8`,
  });
}

/** Makes client input fit for a message: short, and without characters that could forge a log line. */
function printable(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
