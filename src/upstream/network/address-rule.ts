/**
 * Refuses special-purpose addresses (RFC 6890): loopback, private, link-local (cloud metadata) and others. Redirects
 * and token realms come from outside, so they could lead to servers that only this machine can reach. We check the
 * address that the connection uses, because a name can resolve differently the second time (DNS rebinding).
 */
import { lookup as systemLookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';

const special = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  special.addSubnet(network, prefix, 'ipv4');
  // NAT64 (RFC 6052): in an IPv6-only network every IPv4 host has such an address, also most CDNs of registries. So
  // refuse only the special ones.
  special.addSubnet(`64:ff9b::${network}`, 96 + prefix, 'ipv6');
}
for (const [network, prefix] of [
  ['::', 128],
  ['::1', 128],
  ['64:ff9b:1::', 48],
  ['2002::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const) {
  special.addSubnet(network, prefix, 'ipv6');
}

/** Whether `address` is not public. Handles IPv4-mapped IPv6. */
export function isSpecialAddress(address: string): boolean {
  return special.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

/** Whether the host of a URL is a literal special address or `localhost`. Does not resolve names. */
export function isSpecialHost(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$|\.$/g, '');
  if (isIP(host) !== 0) return isSpecialAddress(host);
  return host === 'localhost' || host.endsWith('.localhost');
}

export class SpecialAddressError extends Error {
  override readonly name = 'SpecialAddressError';
}

/** Resolves names as the system does. Fails with {@link SpecialAddressError} if a name has a special address. */
export const publicLookup: LookupFunction = (hostname, options, callback) => {
  systemLookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, []);
    const refused = addresses.find(({ address }) => isSpecialAddress(address));
    if (refused !== undefined) {
      const what = `${hostname} resolves to ${refused.address}, which is not public`;
      return callback(new SpecialAddressError(`${what}; if this is intended, set allowPrivateAddresses`), []);
    }
    const first = addresses[0];
    if (options.all === true || first === undefined) return callback(null, addresses);
    callback(null, first.address, first.family);
  });
};
