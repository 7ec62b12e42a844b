/** What `config check` warns of: a configuration that works, and is probably not what was meant. */
import type { Issue } from '../file/raw.ts';

/** The names of the warnings, for the comment that silences one: `# millpond: allow NAME`. */
export const WARNING_NAMES = [
  'cache-in-memory',
  'credentials-without-tls',
  'doubtful-rule',
  'exposed-secret',
  'fleet-without-tls',
  'long-policy-wait',
  'max-size-above-file-system',
  'no-access-control',
  'pins-everything',
  'relative-directory',
  'unknown-warning',
  'unreachable-pattern',
  'zero-tag-ttl',
] as const;

export type WarningName = (typeof WARNING_NAMES)[number];

export interface Warning {
  name: WarningName;
  issue: Issue;
}

export function warning(name: WarningName, path: Issue['path'], message: string): Warning {
  return { name, issue: { path, part: 'value', message } };
}
