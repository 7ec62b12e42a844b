/** Durations and sizes. */
import * as z from 'zod';
import { written } from './codec.ts';
import { formatDuration, formatSize, parseDuration, parseSize } from './units.ts';

// setTimeout takes a longer delay for 1 ms, so that a timeout of 30 days would fire at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A time span in milliseconds, `0s` included. */
export function duration() {
  const what = 'a duration such as 500ms, 30s, 5m, 24h or 7d';
  return written(what, parseDuration, formatDuration, z.number());
}

/** A time span in milliseconds that a timer can wait for: from 1 ms to 24 days. */
export function timeout() {
  const parse = (text: string) => {
    const ms = parseDuration(text);
    return ms !== undefined && ms > 0 && ms <= LONGEST_TIMER_MS ? ms : undefined;
  };
  return written('a duration from 1ms to 24d, such as 30s', parse, formatDuration, z.number());
}

/** A time span in milliseconds that a timer can wait for, or none. */
export function interval() {
  const parse = (text: string) => {
    if (text === 'none') return null;
    const ms = parseDuration(text);
    return ms !== undefined && ms > 0 && ms <= LONGEST_TIMER_MS ? ms : undefined;
  };
  const format = (ms: number | null) => (ms === null ? 'none' : formatDuration(ms));
  return written('none or a duration from 1ms to 24d, such as 7d', parse, format, z.number().nullable());
}

/** A number of bytes. */
export function sizeOrNone() {
  return written('a size such as 1GiB, or 0B', parseSize, formatSize, z.number());
}

/** A number of bytes above zero, or a share of the file system above 0 and up to 1. */
export function sizeOrShare() {
  const what = 'a size such as 512MiB or 50GiB, or a share of the file system such as 80%';
  const parse = (text: string): number | { share: number } | undefined => {
    const percent = Number(/^(\d{1,3})%$/.exec(text)?.[1] ?? 0);
    if (percent > 0 && percent <= 100) return { share: percent / 100 };
    return parseSize(text) || undefined;
  };
  const format = (value: number | { share: number }) =>
    typeof value === 'number' ? formatSize(value) : `${Math.round(value.share * 100)}%`;
  return written(what, parse, format, z.custom<number | { share: number }>());
}
