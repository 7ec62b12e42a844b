/**
 * Which lines of the sources ran, from the files that Node writes into NODE_V8_COVERAGE, one for each process.
 *
 * Node removes types without moving a character, so V8's positions are those of the source and no source map is needed.
 * Only lines with code count. A comment can neither run nor be missed, and a file of types has no line at all.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** The part of Node's format that is read. Positions count UTF-16 units. */
interface ProcessCoverage {
  result: ScriptCoverage[];
}

interface ScriptCoverage {
  url: string;
  functions: { ranges: { startOffset: number; endOffset: number; count: number }[] }[];
}

/** The lines with code of one file, from 1 on, and whether they ran in any process. */
export type LineCoverage = ReadonlyMap<number, boolean>;

/**
 * @param profiles the folder that NODE_V8_COVERAGE named
 * @param sources the folder of the sources, in `root`: every `.ts` in it counts, loaded or not
 * @returns by path from `root`, sorted
 */
export function readCoverage(profiles: string, root: string, sources: string): Map<string, LineCoverage> {
  const files = readdirSync(join(root, sources), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .toSorted()
    .map((name) => new SourceFile(root, join(sources, name)));
  const byUrl = new Map(files.map((file) => [file.url, file]));
  for (const name of readdirSync(profiles)) {
    const { result } = JSON.parse(readFileSync(join(profiles, name), 'utf8')) as ProcessCoverage;
    for (const script of result) byUrl.get(script.url)?.add(script);
  }
  return new Map(files.map(({ path, lines }) => [path, lines]));
}

class SourceFile {
  readonly path: string;
  readonly url: string;
  readonly lines = new Map<number, boolean>();
  readonly #length: number;
  /** Where the code of each line begins and ends. */
  readonly #spans = new Map<number, [start: number, end: number]>();

  constructor(root: string, path: string) {
    this.path = path;
    this.url = pathToFileURL(join(root, path)).href;
    const code = codeOf(readFileSync(join(root, path), 'utf8'));
    this.#length = code.length;
    let start = 0;
    for (const [at, line] of code.split('\n').entries()) {
      if (/\w/.test(line)) {
        this.lines.set(at + 1, false);
        this.#spans.set(at + 1, [start + line.search(/\S/), start + line.trimEnd().length]);
      }
      start += line.length + 1;
    }
  }

  add({ functions }: ScriptCoverage): void {
    const ran = new Uint8Array(this.#length);
    // V8 gives the outer range before those within it, so the last count that a character gets is the right one.
    for (const { startOffset, endOffset, count } of functions.flatMap(({ ranges }) => ranges)) {
      ran.fill(Math.min(count, 1), startOffset, endOffset);
    }
    for (const [line, span] of this.#spans) {
      if (ran.subarray(...span).includes(1)) this.lines.set(line, true);
    }
  }
}

/** `text` with blanks in place of its types, and of the comments that stand on lines of their own. */
function codeOf(text: string): string {
  const blank = (comment: string) => comment.replace(/[^\n]/g, ' ');
  return stripTypeScriptTypes(text).replace(/^[ \t]*(?:\/\*[\s\S]*?\*\/|\/\/.*$)/gm, blank);
}
