/** The effective configuration as a file. */
import { stringify } from 'yaml';
import * as z from 'zod';
import { type Config, configSchema } from './schema.ts';

const REDACTED = '[redacted]';

/** YAML in the documented order, with defaults filled in. It loads as the same configuration unless it holds secrets. */
export function printConfig(config: Config): string {
  const written = z.encode(configSchema, config);
  const upstreams = Object.entries(written.upstreams).map(([host, upstream]) => [
    host,
    { ...upstream, credentials: redact(upstream.credentials), ...redactedProxy(upstream.proxy) },
  ]);
  return stringify(
    { ...written, upstreams: Object.fromEntries(upstreams) },
    { lineWidth: 0, singleQuote: true, aliasDuplicateObjects: false },
  );
}

type WrittenUpstream = z.input<typeof configSchema>['upstreams'][string];

function redactedProxy(proxy: WrittenUpstream['proxy']): { proxy?: unknown } {
  return typeof proxy === 'object' ? { proxy: { ...proxy, password: REDACTED } } : {};
}

function redact(credentials: WrittenUpstream['credentials']): unknown {
  if (credentials === undefined || credentials === 'none') return credentials;
  if ('identityToken' in credentials) return { identityToken: REDACTED };
  if (!('username' in credentials)) return credentials;
  const { username } = credentials;
  return { username: typeof username === 'string' ? username : REDACTED, password: REDACTED };
}
