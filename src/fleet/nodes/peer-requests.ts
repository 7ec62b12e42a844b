/** What a node asks another one for: the bytes of a digest, from a position on, as they come in there. */
import type { Digest } from '../../oci/digest.ts';
import { parseDigest } from '../../oci/digest.ts';
import type { PeerRequest } from './peer-signatures.ts';

export const HEADERS = {
  node: 'millpond-node',
  time: 'millpond-time',
  nonce: 'millpond-nonce',
  from: 'millpond-from',
  to: 'millpond-to',
  signature: 'millpond-signature',
  size: 'millpond-size',
} as const;

/** @param upstream as all nodes call it */
export function peerPath(upstream: string, digest: Digest): string {
  return `/fleet/${upstream}/${digest}`;
}

/** Where a node is asked to answer when it has heard what a tag means. @param name hashed */
export function tagPath(name: Digest): string {
  return `/fleet/${TAGS}/${name}`;
}

/** In place of an upstream. */
export const TAGS = 'tags';

/** @returns undefined if it is no path of {@link peerPath} or {@link tagPath} */
export function parsePeerPath(path: string): { upstream: string; digest: Digest } | undefined {
  const [, upstream = '', text = ''] = /^\/fleet\/([0-9a-f]{32}|tags)\/([a-z0-9:]+)$/.exec(path) ?? [];
  const digest = parseDigest(text);
  return digest === undefined ? undefined : { upstream, digest };
}

export function headersOf(
  { from, to, node, time, nonce }: PeerRequest,
  signature: string,
): Record<string, string> {
  return {
    [HEADERS.node]: node,
    [HEADERS.time]: String(time),
    [HEADERS.nonce]: nonce,
    [HEADERS.from]: String(from),
    ...(to === undefined ? {} : { [HEADERS.to]: String(to) }),
    [HEADERS.signature]: signature,
  };
}

/** @returns undefined if a header is missing or is none of ours */
export function readHeaders(
  path: string,
  headers: Record<string, string | string[] | undefined>,
): { request: PeerRequest; signature: string } | undefined {
  const text = (name: string) => {
    const value = headers[name];
    return typeof value === 'string' ? value : '';
  };
  const number = (name: string) => {
    const value = text(name);
    return /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  };
  const [from, time] = [number(HEADERS.from), number(HEADERS.time)];
  const to = headers[HEADERS.to] === undefined ? undefined : number(HEADERS.to);
  if (Number.isNaN(from) || Number.isNaN(time) || Number.isNaN(to)) return undefined;
  const request = { path, from, to, time, node: text(HEADERS.node), nonce: text(HEADERS.nonce) };
  return { request, signature: text(HEADERS.signature) };
}
