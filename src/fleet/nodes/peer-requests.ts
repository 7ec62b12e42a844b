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
  chain: 'millpond-chain',
  next: 'millpond-next',
} as const;

/** @param upstream as all nodes call it */
export function peerPath(upstream: string, digest: Digest): string {
  return `/fleet/${upstream}/${digest}`;
}

/** @returns undefined if it is no path of {@link peerPath} */
export function parsePeerPath(path: string): { upstream: string; digest: Digest } | undefined {
  const [, upstream = '', text = ''] = /^\/fleet\/([0-9a-f]{32})\/([a-z0-9:]+)$/.exec(path) ?? [];
  const digest = parseDigest(text);
  return digest === undefined ? undefined : { upstream, digest };
}

export function headersOf(
  { from, to, node, time, nonce, chain }: PeerRequest,
  signature: string,
): Record<string, string> {
  return {
    [HEADERS.node]: node,
    [HEADERS.time]: String(time),
    [HEADERS.nonce]: nonce,
    [HEADERS.from]: String(from),
    ...(to === undefined ? {} : { [HEADERS.to]: String(to) }),
    ...(chain.length === 0 ? {} : { [HEADERS.chain]: chain.join(',') }),
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
  const chain = text(HEADERS.chain)
    .split(',')
    .filter((id) => id !== '');
  const request = { path, from, to, time, node: text(HEADERS.node), nonce: text(HEADERS.nonce), chain };
  return { request, signature: text(HEADERS.signature) };
}
