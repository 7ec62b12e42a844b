/** Days, written as 2027-12-31. */
import * as z from 'zod';
import { written } from './codec.ts';

const DAY_MS = 86_400_000;

/** The end of a day in UTC; milliseconds since the epoch. */
export function endOfDay() {
  return written('a day such as 2027-12-31', parseDay, formatDay, z.number());
}

/** The end of a day in UTC; milliseconds since the epoch. `undefined` if there is no such day. */
export function parseDay(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) return undefined;
  const end = Date.parse(`${text}T00:00:00Z`) + DAY_MS;
  // Refuses 2027-02-30, which some parsers take for a day in March.
  return !Number.isNaN(end) && formatDay(end) === text ? end : undefined;
}

function formatDay(end: number): string {
  return new Date(end - DAY_MS).toISOString().slice(0, 10);
}
