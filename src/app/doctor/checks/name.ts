/** Resolves the name of an upstream, or of the proxy on the way to it. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { toUpstreamError } from '../../../upstream/errors.ts';
import { type Endpoint, hostOf, proxyKey } from './context.ts';
import { CheckFailure, type Finding } from './result.ts';

/** @throws {CheckFailure} */
export async function checkName(endpoint: Endpoint): Promise<Finding> {
  const { name, url, proxy } = endpoint;
  const host = hostOf(proxy?.url ?? url);
  const through = proxy === undefined ? '' : `the proxy resolves ${hostOf(url)}; `;
  if (isIP(host) !== 0) return { outcome: 'ok', message: `${through}${host} is an address` };
  try {
    const addresses = await lookup(host, { all: true });
    const shown = addresses.map(({ address }) => address).join(', ');
    return { outcome: 'ok', message: `${through}${host} has the address ${shown}` };
  } catch (error) {
    const key = proxy === undefined ? `upstreams.${name}.url` : proxyKey(endpoint);
    throw new CheckFailure(
      toUpstreamError(error, name).message.slice(`${name}: `.length),
      `check ${key}, and the DNS server of this machine (/etc/resolv.conf)`,
      error,
    );
  }
}
