/** A terminal as far as progress bars use it: what stands on its screen in the end is what a user sees. */
import { Writable } from 'node:stream';

const ESCAPE = String.fromCharCode(27);
const TOKEN = new RegExp(
  `${ESCAPE}\\[(\\??)(\\d*)([A-Za-z])|${ESCAPE}([78])|([\\r\\n])|([^${ESCAPE}\\r\\n]+)`,
  'g',
);

export class Screen extends Writable {
  readonly isTTY = true;
  readonly columns = 200;
  readonly rows = 50;
  #written = '';
  readonly #watchers = new Set<() => void>();
  readonly #lines: string[] = [''];
  #row = 0;
  #column = 0;
  #saved = { row: 0, column: 0 };

  /** Lines with something on them. */
  get lines(): string[] {
    return this.#lines.map((line) => line.trimEnd()).filter((line) => line !== '');
  }

  /** Resolves when this has been written, whatever became of it since. */
  async waitFor(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.#written)) await new Promise<void>((resolve) => this.#watchers.add(resolve));
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const text = chunk.toString('utf8');
    this.#written += text;
    for (const wake of this.#watchers) wake();
    for (const [, mode, count = '', command, saving, line, plain] of text.matchAll(TOKEN)) {
      if (mode === '' && command !== undefined) this.#control(command, Number(count));
      if (saving === '7') this.#saved = { row: this.#row, column: this.#column };
      if (saving === '8') [this.#row, this.#column] = [this.#saved.row, this.#saved.column];
      if (line === '\n') this.#row += 1;
      if (line !== undefined) this.#column = 0;
      if (plain !== undefined) this.#put(plain);
    }
    done();
  }

  #control(command: string, count: number): void {
    if (command === 'A') this.#row = Math.max(0, this.#row - Math.max(count, 1));
    if (command === 'B') this.#row += Math.max(count, 1);
    if (command === 'G') this.#column = Math.max(count, 1) - 1;
    if (command === 'K') this.#put('', count === 2 ? 0 : this.#column);
    if (command === 'J') {
      this.#put('', this.#column);
      this.#lines.length = this.#row + 1;
    }
  }

  /** @param cut what stands on the line from there on goes */
  #put(text: string, cut = Number.POSITIVE_INFINITY): void {
    const line = (this.#lines[this.#row] ?? '').slice(0, cut);
    const end = this.#column + text.length;
    for (let row = this.#lines.length; row < this.#row; row += 1) this.#lines[row] = '';
    this.#lines[this.#row] = line.slice(0, this.#column).padEnd(this.#column) + text + line.slice(end);
    this.#column = end;
  }
}
