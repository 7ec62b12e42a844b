/** The effective configuration as a file. */
import { isCollection, isMap, isScalar, isSeq, LineCounter, parseDocument, stringify } from 'yaml';
import * as z from 'zod';
import { type Config, configSchema } from './schema.ts';

const REDACTED = '[redacted]';

/** Where the comments begin, unless a line is longer. */
const COMMENT_COLUMN = 40;

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

/** As {@link printConfig}, and behind each value a comment: where it comes from. */
export function printConfigWithOrigins(config: Config, originOf: (path: PropertyKey[]) => string): string {
  const text = printConfig(config);
  const lineCounter = new LineCounter();
  const lines = text.split('\n');
  for (const { path, start, end } of valuesIn(parseDocument(text, { lineCounter }).contents, [])) {
    const { line } = lineCounter.linePos(start);
    // Leaves out a text of several lines: behind it, the comment would be a part of it.
    if (lineCounter.linePos(end).line !== line) continue;
    lines[line - 1] = `${(lines[line - 1] ?? '').padEnd(COMMENT_COLUMN)} # ${originOf(path)}`;
  }
  return lines.join('\n');
}

interface PrintedValue {
  path: PropertyKey[];
  /** Offsets of the first character and of the one behind the last. */
  start: number;
  end: number;
}

/** Every single value, and every empty list or map. */
function* valuesIn(node: unknown, path: PropertyKey[]): Iterable<PrintedValue> {
  if (isMap(node))
    for (const { key, value } of node.items)
      yield* valuesIn(value, [...path, isScalar(key) ? String(key.value) : '']);
  if (isSeq(node)) for (const [at, item] of node.items.entries()) yield* valuesIn(item, [...path, at]);
  const isValue = isScalar(node) || (isCollection(node) && node.items.length === 0);
  if (isValue && node.range) yield { path, start: node.range[0], end: node.range[1] };
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
