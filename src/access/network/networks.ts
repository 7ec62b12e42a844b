/** Lists of networks, and whether an address is in one. */
import { BlockList, isIPv4 } from 'node:net';
import { canonicalAddress } from './addresses.ts';

export interface Network {
  readonly address: string;
  readonly prefix: number;
  readonly family: 'ipv4' | 'ipv6';
}

/** The bits of an IPv6 address before the IPv4 address that is mapped into it. */
const MAPPED_PREFIX = 96;

/**
 * Reads an address or a network in CIDR notation. A network of IPv4-mapped addresses is the IPv4 network.
 *
 * @returns undefined when `text` is neither
 */
export function parseNetwork(text: string): Network | undefined {
  const [, written = '', digits] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const address = canonicalAddress(written);
  if (address === undefined) return undefined;
  const isMapped = isIPv4(address) && !isIPv4(written);
  const family = isIPv4(address) ? 'ipv4' : 'ipv6';
  const bits = family === 'ipv4' ? 32 : 128;
  const prefix = digits === undefined ? bits : Number(digits) - (isMapped ? MAPPED_PREFIX : 0);
  return prefix < 0 || prefix > bits ? undefined : { address, prefix, family };
}

export class NetworkList {
  /** Kept apart, because Node finds an IPv4 address in `::/0` as well. */
  readonly #networks = { ipv4: new BlockList(), ipv6: new BlockList() };

  /** @throws {RangeError} one of them is not an address or a network */
  constructor(networks: readonly string[]) {
    for (const text of networks) {
      const network = parseNetwork(text);
      if (network === undefined) throw new RangeError(`${text} is not an address or a network`);
      this.#networks[network.family].addSubnet(network.address, network.prefix, network.family);
    }
  }

  /** @param address in canonical form; without one, it is in no network */
  has(address: string | undefined): boolean {
    if (address === undefined) return false;
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    return this.#networks[family].check(address, family);
  }
}
