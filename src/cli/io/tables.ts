/** Tables: for people on a terminal, for programs in a pipe. */
import { isTerminal } from './output.ts';
import type { TextOutput } from './surroundings.ts';

/** A value, or the text that people see in its place. */
export type Cell = string | { value: string; text: string };

const GAP = '  ';
/** A name is not cut below this: less of it says nothing. */
const NAME_MIN_LENGTH = 12;
const DEFAULT_COLUMNS = 80;

/**
 * On a terminal, columns are aligned and fit its width: the first one, with the names, is cut in the middle. Elsewhere, a
 * tab stands between full values, so that `cut` and `awk` can read them.
 */
export function writeTable(
  output: TextOutput,
  heading: readonly string[],
  rows: readonly (readonly Cell[])[],
): void {
  if (!isTerminal(output)) {
    for (const row of [heading, ...rows]) output.write(`${row.map(valueOf).join('\t')}\n`);
    return;
  }
  const texts = [heading, ...rows.map((row) => row.map(textOf))];
  const widths = heading.map((_, column) => Math.max(...texts.map((row) => row[column]?.length ?? 0)));
  const [, ...others] = widths;
  const taken = others.reduce((sum, width) => sum + GAP.length + width, 0);
  const nameWidth = Math.max(
    NAME_MIN_LENGTH,
    Math.min(widths[0] ?? 0, (output.columns ?? DEFAULT_COLUMNS) - taken),
  );
  for (const [name = '', ...rest] of texts) {
    const cells = [cutInTheMiddle(name, nameWidth), ...rest];
    const line = cells.map((cell, column) => cell.padEnd(column === 0 ? nameWidth : (widths[column] ?? 0)));
    output.write(`${line.join(GAP).trimEnd()}\n`);
  }
}

/** Both ends of an image's name say most: registry and tag. */
function cutInTheMiddle(text: string, length: number): string {
  if (text.length <= length) return text;
  const end = Math.floor((length - 1) / 2);
  return `${text.slice(0, length - 1 - end)}…${text.slice(text.length - end)}`;
}

/** @param ms since then; negative if the clocks of two machines differ: counts as now */
export function ago(ms: number): string {
  return `${humanDuration(ms)} ago`;
}

/** The largest unit that is whole: `3 min`. */
export function humanDuration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / (24 * 3600))} days`;
}

function valueOf(cell: Cell): string {
  return typeof cell === 'string' ? cell : cell.value;
}

function textOf(cell: Cell): string {
  return typeof cell === 'string' ? cell : cell.text;
}
