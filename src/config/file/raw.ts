/** The configuration as it was read, before anything is known to be right about it. */

/** One thing that is wrong, by its place in the data. */
export interface Issue {
  path: readonly PropertyKey[];
  /** What of the place is wrong. */
  part: 'key' | 'value';
  message: string;
}

export type Raw = Record<string, unknown>;

export function upstreamEntries(data: unknown): [string, Raw][] {
  const upstreams = isRaw(data) ? data['upstreams'] : undefined;
  if (!isRaw(upstreams)) return [];
  return Object.entries(upstreams).filter((entry): entry is [string, Raw] => isRaw(entry[1]));
}

export function isRaw(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
