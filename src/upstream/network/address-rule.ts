/**
 * Redirects and token realms come from outside, so they could lead to what only this machine can reach. Refused are
 * loopback, private, link-local (cloud metadata) and other special addresses; checked is the address that is
 * connected to, so that a name which resolves differently the second time (DNS rebinding) does not pass.
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
  // NAT64: where there is only IPv6, every host of the IPv4 world, most CDNs of registries included, has such an address.
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

/** Whether `address` is no public one. IPv4 in IPv6 clothes is seen through. */
export function isSpecialAddress(address: string): boolean {
  return special.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

/** Whether the host of a URL is itself the literal of a special address, or the name of this machine. */
export function isSpecialHost(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$|\.$/g, '');
  if (isIP(host) !== 0) return isSpecialAddress(host);
  return host === 'localhost' || host.endsWith('.localhost');
}

export class SpecialAddressError extends Error {
  override readonly name = 'SpecialAddressError';
}

/** Resolves names as the system does, and refuses those that lead to a special address. */
export const publicLookup: LookupFunction = (hostname, options, callback) => {
  systemLookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, []);
    const refused = addresses.find(({ address }) => isSpecialAddress(address));
    if (refused !== undefined) {
      const what = `${hostname} resolves to ${refused.address}, which is not public`;
      return callback(new SpecialAddressError(`${what}; if that is meant, set allowPrivateAddresses`), []);
    }
    const first = addresses[0];
    if (options.all === true || first === undefined) return callback(null, addresses);
    callback(null, first.address, first.family);
  });
};
