/** How commands show things: sizes, tables and progress. */
import { MultiBar, SingleBar } from 'cli-progress';
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
    if (!isTerminal(output)) return;
    this.#bar = new SingleBar({ ...BAR, stream: output, format: `${what} ${BAR_FORMAT}` });
    this.#bar.start(1, 0, { size: '?' });
  }

  /** Bytes. */
  update(done: number, total: number): void {
    if (this.#bar !== undefined) updateBar(this.#bar, done, total);
  }

  stop(): void {
    this.#bar?.stop();
  }
}

/** Several bars, one below the other; on a terminal, too. */
export class ProgressBars {
  readonly #bars: MultiBar | undefined;
  readonly #barByName = new Map<string, SingleBar>();

  constructor(output: TextOutput) {
    if (!isTerminal(output)) return;
    this.#bars = new MultiBar({ ...BAR, stream: output, format: `{name} ${BAR_FORMAT}` });
  }

  /** Bytes. */
  update(name: string, done: number, total: number): void {
    if (this.#bars === undefined) return;
    const bar = this.#barByName.get(name) ?? this.#bars.create(1, 0, { name, size: '?' });
    this.#barByName.set(name, bar);
    updateBar(bar, done, total);
  }

  /** It is done, one way or the other. */
  remove(name: string): void {
    const bar = this.#barByName.get(name);
    if (bar !== undefined) this.#bars?.remove(bar);
    this.#barByName.delete(name);
  }

  stop(): void {
    this.#bars?.stop();
  }
}

const BAR = { hideCursor: true, clearOnComplete: true };
const BAR_FORMAT = '{bar} {percentage} % of {size} {eta_formatted}';

function isTerminal(output: TextOutput): output is TextOutput & NodeJS.WritableStream {
  return output instanceof Object && 'isTTY' in output && output.isTTY === true;
}

function updateBar(bar: SingleBar, done: number, total: number): void {
  bar.setTotal(Math.max(total, 1));
  bar.update(total === 0 ? 1 : done, { size: humanSize(total) });
}
