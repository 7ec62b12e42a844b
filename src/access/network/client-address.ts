/** Finds the client of a request behind the proxies that we trust. */
import type { IncomingHttpHeaders } from 'node:http';
import { canonicalAddress } from './addresses.ts';
import { type ForwardedHeader, hopsOf } from './forwarded.ts';
import { NetworkList } from './networks.ts';

/** What is known of a request before its headers are believed. */
export interface Arrival {
  /** The other end of the connection; undefined on a Unix socket, or when the client has gone. */
  readonly address: string | undefined;
  /** Whether the connection itself is TLS. */
  readonly encrypted: boolean;
  /** `Host`, or `:authority` of HTTP/2. */
  readonly host: string | undefined;
  readonly headers: IncomingHttpHeaders;
}

export interface Client {
  /** In canonical form. Undefined: the client has no network identity. Never the address of a trusted proxy. */
  readonly address: string | undefined;
  /** Whether the client speaks TLS: with us, or with a trusted proxy that says https. */
  readonly secure: boolean;
  /** The host and port that the client used; undefined when it is not a host. */
  readonly host: string | undefined;
  /** Whether a trusted proxy sent the request. */
  readonly viaProxy: boolean;
}

/** A name, an IPv4 address or an IPv6 address in brackets, with or without a port. Names may have `_`, as Docker's do. */
const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

export class TrustedProxies {
  readonly #proxies: NetworkList | undefined;
  readonly #header: ForwardedHeader;

  /**
   * @param networks of the proxies; none: no header is believed
   * @param header the one that the proxies write; the other is ignored, because a client can send it through them
   * @throws {RangeError} a network cannot be read
   */
  constructor(networks: readonly string[], header: ForwardedHeader) {
    this.#proxies = networks.length === 0 ? undefined : new NetworkList(networks);
    this.#header = header;
  }

  /**
   * Reads the header from the right. The first address that is not a trusted proxy is the client: what stands left of it
   * was written by the client itself, or by proxies that we do not know.
   */
  clientOf(arrival: Arrival): Client {
    const address = arrival.address === undefined ? undefined : canonicalAddress(arrival.address);
    const host = validHost(arrival.host);
    if (!this.#isProxy(address)) return { address, secure: arrival.encrypted, host, viaProxy: false };

    const hops = hopsOf(arrival.headers, this.#header);
    // If all are proxies, the client is unknown. The last hop still says how it was reached.
    const hop = hops.find((one) => !this.#isProxy(one.address)) ?? hops.at(-1);
    return {
      address: this.#isProxy(hop?.address) ? undefined : hop?.address,
      secure: hop?.scheme === 'https',
      host: hop?.host === undefined ? host : validHost(hop.host),
      viaProxy: true,
    };
  }

  #isProxy(address: string | undefined): boolean {
    return this.#proxies?.has(address) === true;
  }
}

function validHost(host: string | undefined): string | undefined {
  return host !== undefined && HOST.test(host) ? host : undefined;
}
