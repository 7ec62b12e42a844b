/** Durations and sizes. */
import * as z from 'zod';
import { written } from './codec.ts';
import { formatDuration, formatSize, nearestSize, parseDuration, parseSize } from './units.ts';

// setTimeout turns a longer delay into 1 ms: a timeout of 30 days would fire at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** With less than this, images would take days: `50B` is a mistake. */
const LEAST_BANDWIDTH_BYTES = 1024;

/** A duration in milliseconds, `0s` included. */
export function duration() {
  const what = 'a duration with its unit, such as 500ms, 30s, 5m, 24h or 7d';
  return written(what, parseDuration, formatDuration, z.number());
}

/** A duration in milliseconds that a timer can wait for: from 1 ms to 24 days. */
export function timeout() {
  const what = 'a duration from 1ms to 24d with its unit, such as 30s';
  return written(what, parseTimer, formatDuration, z.number());
}

/** A duration in milliseconds, both ends included. */
export function durationBetween(shortest: string, longest: string) {
  const [least = 0, most = 0] = [parseDuration(shortest), parseDuration(longest)];
  const parse = (written: string) => {
    const ms = parseDuration(written);
    return ms !== undefined && ms >= least && ms <= most ? ms : undefined;
  };
  return written(
    `a duration from ${shortest} to ${longest}, such as ${longest}`,
    parse,
    formatDuration,
    z.number(),
  );
}

/** As {@link timeout}; `none` is `null`. */
export function interval() {
  const what = 'none, or a duration from 1ms to 24d with its unit, such as 7d';
  const parse = (text: string) => (text === 'none' ? null : parseTimer(text));
  const format = (ms: number | null) => (ms === null ? 'none' : formatDuration(ms));
  return written(what, parse, format, z.number().nullable());
}

function parseTimer(text: string): number | undefined {
  const ms = parseDuration(text);
  return ms !== undefined && ms > 0 && ms <= LONGEST_TIMER_MS ? ms : undefined;
}

/** A number of bytes, 0 included. */
export function sizeOrNone() {
  const what = 'a size in B, KiB, MiB, GiB or TiB, such as 1GiB, or 0B';
  return written(what, parseSize, formatSize, z.number(), nearestSize);
}

/** A number of bytes above 0; `none` is `null`. */
export function sizeLimit(example: string) {
  const what = `none, or a size such as ${example}`;
  const parse = (text: string) => (text === 'none' ? null : parseSize(text) || undefined);
  const format = (bytes: number | null) => (bytes === null ? 'none' : formatSize(bytes));
  return written(what, parse, format, z.number().nullable(), nearestSize);
}

/** A number of bytes above 0, or a share of the file system, above 0 and at most 1. */
export function sizeOrShare() {
  const what =
    'a size in B, KiB, MiB, GiB or TiB, such as 50GiB, or a share of the file system from 1% to 100%, such as 80%';
  const parse = (text: string): number | { share: number } | undefined => {
    const percent = Number(/^(\d{1,3})%$/.exec(text)?.[1] ?? 0);
    if (percent > 0 && percent <= 100) return { share: percent / 100 };
    return parseSize(text) || undefined;
  };
  const format = (value: number | { share: number }) =>
    typeof value === 'number' ? formatSize(value) : `${Math.round(value.share * 100)}%`;
  return written(what, parse, format, z.custom<number | { share: number }>(), nearestSize);
}

/** Bytes a second; `none` is `null`. */
export function bandwidth() {
  const what = 'none, or bytes a second from 1KiB, such as 50MiB';
  const parse = (text: string) => {
    if (text === 'none') return null;
    const bytes = parseSize(text);
    return bytes !== undefined && bytes >= LEAST_BANDWIDTH_BYTES ? bytes : undefined;
  };
  const format = (bytes: number | null) => (bytes === null ? 'none' : formatSize(bytes));
  return written(what, parse, format, z.number().nullable());
}
