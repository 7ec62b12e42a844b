/** Reads the comments that silence warnings: `# millpond: allow relative-directory, zero-tag-ttl`. */
import { Lexer } from 'yaml';
import type { Position } from '../file/source.ts';

export interface Allowed extends Position {
  /** As written: there may be no such warning. */
  name: string;
}

/** @param text YAML. A `#` in a value is no comment */
export function allowedIn(text: string): Allowed[] {
  const allowed: Allowed[] = [];
  let offset = 0;
  for (const token of new Lexer().lex(text)) {
    // Skips what is not in the file: the lexer marks documents, scalars and flow ends by control characters.
    if (token === '\u{2}' || token === '\u{18}' || token === '\u{1f}') continue;
    for (const name of /^#\s*millpond:\s*allow\s+(.+)$/.exec(token)?.[1]?.split(/[\s,]+/) ?? [])
      if (name !== '') allowed.push({ name, ...positionIn(text, offset) });
    offset += token.length;
  }
  return allowed;
}

function positionIn(text: string, offset: number): Position {
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, col: (before.at(-1) ?? '').length + 1 };
}
