/**
 * Refuses what a web page can send: a page that is open on a machine that reaches the mirror must neither control the
 * mirror nor read from it.
 */
import { isIP } from 'node:net';
import type { Middleware } from 'koa';
import { isFromAnotherSite } from '../../access/network/web-page.ts';
import { ApiError } from './errors.ts';

/** @throws {ApiError} 403 */
export function refuseWebPages(): Middleware {
  return async (ctx, next) => {
    if (isFromAnotherSite(ctx.headers)) throw new ApiError(403, 'requests from web pages are refused');
    await next();
  };
}

/**
 * Refuses names that are not ours. DNS rebinding gives the attacker's own name our address: then the browser takes the
 * page and the mirror for one site, and only `Host` still tells them apart.
 *
 * @param names besides localhost and IP addresses; a port in them does not matter
 * @throws {ApiError} 421
 */
export function refuseUnknownHosts(names: readonly string[]): Middleware {
  const known = new Set(['localhost', ...names.map(nameIn)]);
  return async (ctx, next) => {
    const { host = '' } = ctx.headers;
    const name = nameIn(host);
    if (isIP(name) === 0 && !known.has(name)) {
      const advice = 'add it to operations.hosts in the configuration, or use localhost or an IP address';
      throw new ApiError(421, `${JSON.stringify(host)} is not a name of this operations listener: ${advice}`);
    }
    await next();
  };
}

/** The name or address in a `Host` header, in lower case and without port and brackets. */
function nameIn(host: string): string {
  const [, address, name = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(host.toLowerCase()) ?? [];
  return address ?? name;
}
