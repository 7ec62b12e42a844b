/** What a node asks another one for: the bytes of a digest, from a position on, as they come in there. */
import type { Digest } from '../../oci/digest.ts';
import { parseDigest } from '../../oci/digest.ts';
import { parseRepository, type Repository } from '../../oci/reference.ts';
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

export interface PeerPath {
  /** As all nodes call it. */
  upstream: string;
  digest: Digest;
  /** From which repository to fetch it if it is not there. Absent: nothing is to be fetched. */
  fetchFrom?: Repository | undefined;
}

export function peerPath(upstream: string, digest: Digest, fetchFrom?: Repository): string {
  return `/fleet/${upstream}/${digest}${fetchFrom === undefined ? '' : `/${fetchFrom}`}`;
}

/** @returns undefined if it is no path of {@link peerPath} */
export function parsePeerPath(path: string): PeerPath | undefined {
  const [, upstream = '', text = '', from] =
    /^\/fleet\/([0-9a-f]{32})\/([a-z0-9:]+)(?:\/(.+))?$/.exec(path) ?? [];
  const digest = parseDigest(text);
  if (digest === undefined || from === undefined) return digest && { upstream, digest };
  const fetchFrom = parseRepository(from);
  return fetchFrom && { upstream, digest, fetchFrom };
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
