/** The data of a configuration file before it is checked. */

/** One mistake, at its place in the data. */
export interface Issue {
  path: readonly PropertyKey[];
  /** Which part of the place is wrong. */
  part: 'key' | 'value';
  message: string;
}

export type Raw = Record<string, unknown>;

/** The upstreams whose settings are a map, with their hosts. */
export function upstreamEntries(data: unknown): [string, Raw][] {
  const upstreams = isRaw(data) ? data['upstreams'] : undefined;
  if (!isRaw(upstreams)) return [];
  return Object.entries(upstreams).filter((entry): entry is [string, Raw] => isRaw(entry[1]));
}

export function isRaw(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `access.rules[0].who`. */
export function formatPath(path: Issue['path']): string {
  return path.reduce<string>(
    (text, step) =>
      text + (typeof step === 'number' ? `[${step}]` : `${text === '' ? '' : '.'}${String(step)}`),
    '',
  );
}
