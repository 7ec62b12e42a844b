/** Prints sizes, tables and progress. */
import { MultiBar, type SingleBar } from 'cli-progress';
import prettyBytes from 'pretty-bytes';
import type { TextOutput } from './surroundings.ts';

/** Bytes for people, in binary units and three significant digits: `1.5 GiB`. */
export function humanSize(bytes: number): string {
  return prettyBytes(bytes, { binary: true });
}

/** Aligns rows in columns. The first row is the heading. */
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

/** Shows progress bars on a terminal, one below the other. Elsewhere it writes nothing: there
 * the lines of the command are enough. */
export class ProgressBars {
  readonly #output: (TextOutput & NodeJS.WritableStream) | undefined;
  readonly #bytesByName = new Map<string, { done: number; total: number }>();
  #shown: { bars: MultiBar; barByName: Map<string, SingleBar> } | undefined;

  constructor(output: TextOutput) {
    if (isTerminal(output)) this.#output = output;
  }

  /**
   * Shows a bar, or moves it.
   *
   * @param name the label of the bar; each name has one bar
   */
  update(name: string, done: number, total: number): void {
    if (this.#output === undefined) return;
    this.#bytesByName.set(name, { done, total });
    this.#shown ??= this.#show(this.#output);
    const { bars, barByName } = this.#shown;
    const bar = barByName.get(name) ?? bars.create(Math.max(total, 1), done, { name, size: sizeOf(total) });
    barByName.set(name, bar);
    bar.setTotal(Math.max(total, 1));
    bar.update(done, { size: sizeOf(total) });
  }

  /** Removes a bar, because its work has ended. */
  remove(name: string): void {
    this.#bytesByName.delete(name);
    this.hide();
  }

  /** Takes the bars off the screen, so that a line can be written. The next update shows them again. */
  hide(): void {
    this.#shown?.bars.stop();
    this.#shown = undefined;
  }

  #show(output: NodeJS.WritableStream) {
    const format = '{name} {bar} {percentage} % of {size} {eta_formatted}';
    const bars = new MultiBar({ stream: output, format, hideCursor: true, clearOnComplete: true });
    const barByName = new Map<string, SingleBar>();
    for (const [name, { done, total }] of this.#bytesByName)
      barByName.set(name, bars.create(Math.max(total, 1), done, { name, size: sizeOf(total) }));
    return { bars, barByName };
  }
}

export function isTerminal(
  output: TextOutput,
): output is TextOutput & NodeJS.WritableStream & { columns?: number } {
  return output instanceof Object && 'isTTY' in output && output.isTTY === true;
}

function sizeOf(total: number): string {
  return total === 0 ? '?' : humanSize(total);
}
