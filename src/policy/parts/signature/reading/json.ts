/** Reads JSON of strangers. */

export type JsonObject = Readonly<Record<string, unknown>>;

/** Undefined: it is not JSON, or not an object. */
export function parseObject(bytes: Uint8Array | string): JsonObject | undefined {
  try {
    return objectOf(JSON.parse(typeof bytes === 'string' ? bytes : Buffer.from(bytes).toString('utf8')));
  } catch {
    return undefined;
  }
}

export function objectOf(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as JsonObject)
    : undefined;
}

export function arrayOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

export function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
