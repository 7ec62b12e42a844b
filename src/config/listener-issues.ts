/** Mistakes of the two listeners that the schema cannot express. */
import type { Issue } from './file/raw.ts';
import type { Config } from './schema.ts';

/** Keys of a listener that need each other. */
export function listenerIssues({ server, operations }: Config): Issue[] {
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
  return issues;
}
