/** The effective configuration as a file. */
import { stringify } from 'yaml';
import * as z from 'zod';
import { type Config, configSchema } from './schema.ts';

const REDACTED = '[redacted]';

/**
 * YAML in the documented order, with defaults filled in and secrets redacted. Without secrets, it loads as the same
 * configuration.
 */
export function printConfig(config: Config): string {
  return stringify(printable(config), {
    lineWidth: 0,
    singleQuote: true,
    aliasDuplicateObjects: false,
  });
}

/** The configuration as in a file, with secrets redacted. */
export function printable(config: Config): unknown {
  return redact(z.encode(configSchema, config));
}

/** Goes by the shape of a secret's reference, not by its place: a new section cannot forget to redact its own. */
function redact(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(redact);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value);
  const [key] = entries[0] ?? [];
  if (entries.length === 1 && (key === 'env' || key === 'file')) return REDACTED;
  return Object.fromEntries(entries.map(([name, inner]) => [name, redact(inner)]));
}
