/** Mistakes of the listeners that the schema cannot express. */
import { isIPv4, isIPv6 } from 'node:net';
import { formatListen, type ListenAddress } from './fields/addresses.ts';
import type { Issue } from './file/raw.ts';
import type { Config } from './schema.ts';

/** @param isWritten whether a key is set by the user: the place of a mistake of two keys is that of one of these */
export function listenerIssues(config: Config, isWritten: (path: Issue['path']) => boolean): Issue[] {
  const { server, operations } = config;
  const issues: Issue[] = [];
  for (const [side, { tls }] of Object.entries({ server, operations })) {
    if (tls === undefined || tls.clientCa !== undefined) continue;
    const needs = (key: string) =>
      issues.push({
        path: [side, 'tls', key],
        part: 'key',
        message: 'needs clientCa: add it, or leave this out',
      });
    if (tls.clientCrl !== undefined) needs('clientCrl');
    if (tls.clientCertificate === 'required') needs('clientCertificate');
  }
  if (server.accelRedirect !== null && server.trustedProxies.length === 0) {
    const message = 'needs trustedProxies: add the address of the nginx, such as 127.0.0.1';
    issues.push({ path: ['server', 'accelRedirect'], part: 'key', message });
  }
  issues.push(...overlapIssues(config, isWritten), ...fleetIssues(config));
  return issues;
}

function overlapIssues({ server, operations }: Config, isWritten: (path: Issue['path']) => boolean): Issue[] {
  const { listen } = operations;
  if ('socket' in listen || !overlap(server.listen, listen)) return [];
  const here = isWritten(['operations', 'listen']) ? 'operations' : 'server';
  const other =
    here === 'server'
      ? `operations.listen, ${formatListen(listen)}`
      : `server.listen, ${formatListen(server.listen)}`;
  const message = `cannot be opened beside ${other}: give one of the two another port`;
  return [{ path: [here, 'listen'], part: 'value', message }];
}

function fleetIssues({ fleet, server, operations }: Config): Issue[] {
  if (fleet === undefined) return [];
  if (fleet.coordinator === undefined) {
    if (fleet.objects.maxSize === null) return [];
    const message =
      'needs coordinator: the nodes tell each other there what they use. Add it, or leave this out and give the bucket a lifecycle rule';
    return [{ path: ['fleet', 'objects', 'maxSize'], part: 'key', message }];
  }
  const issues: Issue[] = [];
  const { listen, advertise } = fleet;
  if (advertise === undefined && ['0.0.0.0', '::'].includes(plainHost(listen.host))) {
    const message =
      'needs advertise: the URL by which the other nodes reach this one, such as http://10.0.0.3:5002';
    issues.push({ path: ['fleet', 'coordinator'], part: 'key', message });
  }
  for (const [name, other] of Object.entries({ server: server.listen, operations: operations.listen })) {
    if ('socket' in other || !overlap(listen, other)) continue;
    const message = `cannot be opened beside ${name}.listen, ${formatListen(other)}: give one of the two another port`;
    issues.push({ path: ['fleet', 'listen'], part: 'value', message });
  }
  return issues;
}

/** Whether no two sockets can have these addresses at the same time, as far as their text tells. */
function overlap(a: ListenAddress, b: ListenAddress): boolean {
  // Port 0 is any free one.
  if (a.port !== b.port || a.port === 0) return false;
  const hosts = [plainHost(a.host), plainHost(b.host)];
  if (hosts[0] === hosts[1] || hosts.includes('::')) return true; // :: takes IPv4, too
  return hosts.includes('0.0.0.0') && hosts.every(isIPv4);
}

/** One spelling of an IPv6 address. */
function plainHost(host: string): string {
  return isIPv6(host) ? new URL(`http://[${host}]`).hostname.slice(1, -1) : host.toLowerCase();
}
