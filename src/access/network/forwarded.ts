/** Reads what proxies write about the client: X-Forwarded-For and similar headers, or Forwarded (RFC 7239). */
import type { IncomingHttpHeaders } from 'node:http';
import { isIPv6 } from 'node:net';
import parse from 'forwarded-parse';
import { canonicalAddress } from './addresses.ts';

export type ForwardedHeader = 'x-forwarded-for' | 'forwarded';

/** What one proxy says about the connection on which it got the request. */
export interface Hop {
  /** In canonical form. Undefined: not told, hidden, or not readable. */
  readonly address: string | undefined;
  readonly scheme: string | undefined;
  readonly host: string | undefined;
}

const NOT_TOLD: Hop = { address: undefined, scheme: undefined, host: undefined };

/**
 * The hops of a request, the one next to us first. Only `header` is read, and what goes with it. There is always at
 * least one hop. It is empty if there is no header or it cannot be read.
 */
export function hopsOf(headers: IncomingHttpHeaders, header: ForwardedHeader): Hop[] {
  const hops = header === 'forwarded' ? standardHops(headers) : customaryHops(headers);
  return hops.length === 0 ? [NOT_TOLD] : hops.toReversed();
}

function standardHops(headers: IncomingHttpHeaders): Hop[] {
  const value = single(headers, 'forwarded');
  if (value === undefined) return [];
  try {
    return parse(value).map((element) => ({
      address: element['for'] === undefined ? undefined : nodeAddress(element['for']),
      scheme: element['proto']?.toLowerCase(),
      host: element['host'],
    }));
  } catch {
    // Believes nothing: a client that leaves a quotation mark open would hide what the proxies write after it.
    return [];
  }
}

/**
 * X-Forwarded-Proto and X-Forwarded-Host do not say which hop they are about. Of several values the last counts, because
 * the proxy next to us wrote it; what stands before may be the client's own.
 */
function customaryHops(headers: IncomingHttpHeaders): Hop[] {
  const scheme = last(single(headers, 'x-forwarded-proto'))?.toLowerCase();
  const host = last(single(headers, 'x-forwarded-host'));
  const addresses = single(headers, 'x-forwarded-for')?.split(',') ?? [''];
  return addresses.map((text) => ({ address: listedAddress(text.trim()), scheme, host }));
}

/** A node of RFC 7239, section 6: an IPv6 address stands in brackets, a port may follow, a name is not an address. */
function nodeAddress(node: string): string | undefined {
  const [, ipv6, other] = /^(?:\[([^[\]]+)\]|([^:[\]]+))(?::(?:\d{1,5}|_[\w.-]+))?$/.exec(node) ?? [];
  if (ipv6 !== undefined) return isIPv6(ipv6) ? canonicalAddress(ipv6) : undefined;
  return other === undefined ? undefined : canonicalAddress(other);
}

/** In X-Forwarded-For, an IPv6 address usually has no brackets; some proxies add ports. */
function listedAddress(text: string): string | undefined {
  return canonicalAddress(text) ?? nodeAddress(text);
}

function last(list: string | undefined): string | undefined {
  return list?.split(',').at(-1)?.trim();
}

/** A header that came several times is one list. */
function single(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(',') : value;
}
