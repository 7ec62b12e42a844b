/** IP addresses, each in one spelling. */
import { isIPv4, isIPv6 } from 'node:net';

/** Groups of 16 bits in an IPv6 address, and in its network of 64 bits. */
const GROUPS = 8;
const NETWORK_GROUPS = 4;
const MAPPED = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;

/**
 * The address as RFC 5952 spells it, without its zone. An IPv4-mapped IPv6 address becomes the IPv4 address: a socket
 * that listens on both families reports IPv4 clients that way.
 *
 * @returns undefined when `text` is not an address
 */
export function canonicalAddress(text: string): string | undefined {
  // Handles the usual spellings first, because a URL takes some microseconds.
  const ipv4 = text.startsWith('::ffff:') ? text.slice('::ffff:'.length) : text;
  if (isIPv4(ipv4)) return ipv4;
  if (!isIPv6(text)) return undefined;
  const { hostname } = new URL(`http://[${text.replace(/%.*$/s, '')}]`);
  const address = hostname.slice(1, -1);
  const [, high, low] = MAPPED.exec(address) ?? [];
  if (high === undefined || low === undefined) return address;
  const bits = Number.parseInt(high, 16) * 0x10000 + Number.parseInt(low, 16);
  return [bits >>> 24, (bits >>> 16) & 0xff, (bits >>> 8) & 0xff, bits & 0xff].join('.');
}

/**
 * What counts as one client when clients are slowed down: an IPv4 address, or the /64 of an IPv6 address, because a
 * client that has one address of a /64 usually has them all. Text that is not an address, such as the empty text of a
 * Unix socket, stays as it is.
 */
export function addressGroup(address: string): string {
  const canonical = canonicalAddress(address);
  if (canonical === undefined || isIPv4(canonical)) return canonical ?? address;
  const [head = [], tail = []] = canonical
    .split('::')
    .map((part) => part.split(':').filter((group) => group !== ''));
  const zeros = Array.from({ length: GROUPS - head.length - tail.length }, () => '0');
  return `${[...head, ...zeros, ...tail].slice(0, NETWORK_GROUPS).join(':')}::/64`;
}

/** @param address in canonical form */
export function isLoopback(address: string | undefined): boolean {
  return address === '::1' || address?.startsWith('127.') === true;
}
