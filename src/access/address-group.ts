/** Groups the addresses that count as one client. Pure. */
import { isIPv4, isIPv6, SocketAddress } from 'node:net';

const GROUPS = 8;
const NETWORK_GROUPS = 4;

/**
 * An IPv4 address is one client. An IPv6 client usually has a whole /64, so a /64 is one client. Handles IPv4-mapped
 * IPv6. Anything else, such as the empty text of a Unix socket, stays as it is.
 */
export function addressGroup(address: string): string {
  if (!isIPv6(address)) return address;
  const shortest = new SocketAddress({ address, family: 'ipv6' }).address;
  const mapped = shortest.replace(/^::ffff:/, '');
  if (isIPv4(mapped)) return mapped;
  const [head = [], tail = []] = shortest
    .split('::')
    .map((part) => part.split(':').filter((group) => group !== ''));
  const zeros = Array.from({ length: GROUPS - head.length - tail.length }, () => '0');
  return `${[...head, ...zeros, ...tail].slice(0, NETWORK_GROUPS).join(':')}::/64`;
}
