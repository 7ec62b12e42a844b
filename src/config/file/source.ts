/** A YAML file as data. It can tell the line and column of each key and value. */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml';

export interface Position {
  line: number;
  col: number;
}

export interface SyntaxProblem extends Position {
  message: string;
}

/** The data of one YAML file. All keys are strings; aliases are resolved. */
export class YamlSource {
  /** The content: `null` if the file is empty, `undefined` if it is not valid YAML. */
  readonly data: unknown;
  readonly text: string;
  readonly #problems: SyntaxProblem[];
  readonly #lines = new LineCounter();
  readonly #document;

  constructor(text: string) {
    this.text = text;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, stringKeys: true });
    const { errors, warnings } = this.#document;
    // Keeps the first of several problems at one place: the parser reports others that only follow from it.
    const faults = [...errors, ...warnings].filter(
      ({ pos }, index, all) => all.findIndex((other) => other.pos[0] === pos[0]) === index,
    );
    this.#problems = faults.map((fault) => ({ ...this.#at(fault.pos[0]), message: messageOf(fault) }));
    // Reads the data in spite of duplicate keys, so that the rest of the file is checked in the same run.
    if (faults.every(({ code }) => code === 'DUPLICATE_KEY')) this.data = this.#read();
  }

  /** The problems of the file as YAML. With only duplicate keys among them, there is data as well. */
  get problems(): readonly SyntaxProblem[] {
    return this.#problems;
  }

  /** The position of the key or the value at `path`. If it is not in the file, the position of the nearest key above it. */
  locate(path: readonly PropertyKey[], part: 'key' | 'value'): Position {
    const { key, value, isThere } = this.#search(path);
    return this.#at(isThere && part === 'value' ? value : key);
  }

  /** As {@link locate}; undefined if it is not in the file. */
  find(path: readonly PropertyKey[], part: 'key' | 'value'): Position | undefined {
    const { key, value, isThere } = this.#search(path);
    return isThere ? this.#at(part === 'value' ? value : key) : undefined;
  }

  /** The offsets of what is at `path`, or of the nearest key above it. */
  #search(path: readonly PropertyKey[]): { key: number; value: number; isThere: boolean } {
    let node: unknown = this.#document.contents;
    let nearest = path.length === 0 ? (startOf(node) ?? 0) : 0;
    for (const step of path) {
      const container = isAlias(node) ? node.resolve(this.#document) : node;
      let key: unknown;
      if (isMap(container)) {
        const pair = container.items.findLast((item) => isScalar(item.key) && item.key.value === step);
        key = pair?.key;
        node = pair?.value;
      } else if (isSeq(container)) {
        key = node = typeof step === 'number' ? container.items[step] : undefined;
      }
      const keyStart = startOf(key);
      if (keyStart === undefined) return { key: nearest, value: nearest, isThere: false };
      nearest = keyStart;
    }
    return { key: nearest, value: startOf(node) ?? nearest, isThere: true };
  }

  #at(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    // Replaces line 0, which yaml returns for an empty file.
    return line === 0 ? { line: 1, col: 1 } : { line, col };
  }

  #read(): unknown {
    let readable = true;
    visit(this.#document, {
      Alias: (_, alias) => {
        if (alias.resolve(this.#document) !== undefined) return;
        this.#problems.push({
          ...this.#at(startOf(alias) ?? 0),
          message: 'there is no anchor (&name) for this alias before it',
        });
        readable = false;
      },
    });
    if (!readable) return undefined;
    try {
      return this.#document.toJS();
    } catch (error) {
      // Catches what yaml throws when a few lines of nested aliases would expand into gigabytes.
      if (!(error instanceof ReferenceError)) throw error;
      this.#problems.push({
        line: 1,
        col: 1,
        message: 'nested aliases expand to too much data: write it out in full',
      });
      return undefined;
    }
  }
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}

/** Replaces or shortens the message of yaml: some of its messages quote the file, and the quoted text may be a secret. */
function messageOf({ code, message }: { code: string; message: string }): string {
  switch (code) {
    case 'DUPLICATE_KEY':
      return 'duplicate key: it is already in this map, remove one of the two';
    case 'MULTIPLE_DOCS':
      return 'must be one YAML document, got several: remove this ---';
    case 'BAD_DQ_ESCAPE':
      return 'invalid YAML: unknown escape sequence in a double-quoted text';
    default:
      return `invalid YAML: ${message.replace(/: .*$/s, '')}`;
  }
}
