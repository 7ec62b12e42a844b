/** A YAML file as data, with the way back from a key or value to its line and column. */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml';

export interface Position {
  line: number;
  col: number;
}

export interface SyntaxProblem extends Position {
  message: string;
}

/** The data of one YAML file. Keys are strings; aliases are followed. */
export class YamlSource {
  /** What the file holds: `null` when it is empty, `undefined` when it cannot be read as YAML. */
  readonly data: unknown;
  readonly #problems: SyntaxProblem[];
  readonly #lines = new LineCounter();
  readonly #document;

  constructor(text: string) {
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, stringKeys: true });
    const { errors, warnings } = this.#document;
    // One fault makes the parser complain of others at the same place; the first of them is the one that helps.
    const faults = [...errors, ...warnings].filter(
      ({ pos }, index, all) => all.findIndex((other) => other.pos[0] === pos[0]) === index,
    );
    this.#problems = faults.map((fault) => ({ ...this.#at(fault.pos[0]), message: messageOf(fault) }));
    // A key that stands twice leaves the rest readable, so that the rest can be checked as well.
    if (faults.every(({ code }) => code === 'DUPLICATE_KEY')) this.data = this.#read();
  }

  /** Everything that is wrong with the file as YAML. There may be data all the same. */
  get problems(): readonly SyntaxProblem[] {
    return this.#problems;
  }

  /** Where the key or the value at `path` stands; for one that is not in the file, the nearest key above it. */
  locate(path: readonly PropertyKey[], part: 'key' | 'value'): Position {
    let node: unknown = this.#document.contents;
    let nearest = 0;
    for (const [depth, step] of path.entries()) {
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
      if (keyStart === undefined) return this.#at(nearest);
      nearest = keyStart;
      if (depth === path.length - 1) return this.#at(part === 'key' ? keyStart : (startOf(node) ?? keyStart));
    }
    return this.#at(startOf(node) ?? 0);
  }

  #at(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    // An empty file has no lines.
    return line === 0 ? { line: 1, col: 1 } : { line, col };
  }

  #read(): unknown {
    let readable = true;
    visit(this.#document, {
      Alias: (_, alias) => {
        if (alias.resolve(this.#document) !== undefined) return;
        this.#problems.push({ ...this.#at(startOf(alias) ?? 0), message: 'alias has no anchor before it' });
        readable = false;
      },
    });
    if (!readable) return undefined;
    try {
      return this.#document.toJS();
    } catch (error) {
      // yaml's answer to a few lines of aliases that would unfold into gigabytes.
      if (!(error instanceof ReferenceError)) throw error;
      this.#problems.push({ line: 1, col: 1, message: 'aliases refer to aliases too many times over' });
      return undefined;
    }
  }
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}

/** yaml's words in ours. Some of its messages quote the file, and what stands there may be a secret. */
function messageOf({ code, message }: { code: string; message: string }): string {
  switch (code) {
    case 'DUPLICATE_KEY':
      return 'key stands twice in the same map';
    case 'MULTIPLE_DOCS':
      return 'file must hold one YAML document, got several';
    case 'BAD_DQ_ESCAPE':
      return 'not YAML: invalid escape sequence in a double-quoted text';
    default:
      return `not YAML: ${message.replace(/: .*$/s, '')}`;
  }
}
