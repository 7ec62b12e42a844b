/** How commands show things: sizes, tables and progress. */
import { SingleBar } from 'cli-progress';
import type { TextOutput } from './command.ts';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Bytes for people: `1.5 GiB`. */
export function humanSize(bytes: number): string {
  let unit = 0;
  let amount = bytes;
  while (amount >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${UNITS[unit]}`;
}

/** Rows in columns; the first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** A bar on a terminal, nothing elsewhere: there the end of it has a line of its own. */
export class ProgressBar {
  readonly #bar: SingleBar | undefined;

  /** @param what stands before it */
  constructor(output: TextOutput, what: string) {
    if (!(output instanceof Object && 'isTTY' in output && output.isTTY === true)) return;
    this.#bar = new SingleBar({
      stream: output as unknown as NodeJS.WritableStream,
      format: `${what} {bar} {percentage} % of {size} {eta_formatted}`,
      hideCursor: true,
      clearOnComplete: true,
    });
    this.#bar.start(1, 0, { size: '?' });
  }

  /** Bytes. */
  update(done: number, total: number): void {
    this.#bar?.setTotal(Math.max(total, 1));
    this.#bar?.update(total === 0 ? 1 : done, { size: humanSize(total) });
  }

  stop(): void {
    this.#bar?.stop();
  }
}
