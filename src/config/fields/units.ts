/** Reads and writes durations and sizes as people write them: a whole number and a unit. */

const DURATION_UNITS = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);

const SIZE_UNITS = new Map([
  ['B', 1],
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['TiB', 2 ** 40],
]);

/**
 * The milliseconds of `500ms`, `30s`, `5m`, `24h` or `7d`. `undefined` if `text` is not a duration, or if it is too large to
 * be exact.
 */
export function parseDuration(text: string): number | undefined {
  return parseAmount(text, DURATION_UNITS);
}

/** The shortest exact text for a whole number of milliseconds, 0 or more: 90000 is `90s`, 86400000 is `1d`. */
export function formatDuration(ms: number): string {
  return formatAmount(ms, DURATION_UNITS, 's');
}

/** The bytes of `512MiB` or `50GiB`. `undefined` if `text` is not a size, or if it is too large to be exact. */
export function parseSize(text: string): number | undefined {
  return parseAmount(text, SIZE_UNITS);
}

/** The shortest exact text for a whole number of bytes, 0 or more: 1536 is `1536B`, 53687091200 is `50GiB`. */
export function formatSize(bytes: number): string {
  return formatAmount(bytes, SIZE_UNITS, 'B');
}

/**
 * The size that was probably meant by `50G`, `50gb` or `50 GiB`: `50GiB`. Sizes of disks and memory are told in these
 * units, with or without the i.
 */
export function nearestSize(text: string): string | undefined {
  const [, count, unit = ''] = /^([1-9]\d*) *([kmgt]?)i?b?$/i.exec(text) ?? [];
  const name = unit === '' ? 'B' : `${unit.toUpperCase()}iB`;
  return count === undefined ? undefined : `${count}${name}`;
}

function parseAmount(text: string, units: ReadonlyMap<string, number>): number | undefined {
  const [, count, unit] = /^(\d+)([A-Za-z]+)$/.exec(text) ?? [];
  const factor = units.get(unit ?? '');
  if (factor === undefined) return undefined;
  const amount = Number(count) * factor;
  return Number.isSafeInteger(amount) ? amount : undefined;
}

function formatAmount(amount: number, units: ReadonlyMap<string, number>, unitOfZero: string): string {
  if (amount === 0) return `0${unitOfZero}`;
  const [unit, factor] = [...units].findLast(([, factor]) => amount % factor === 0) ?? ['', 1];
  return `${amount / factor}${unit}`;
}
