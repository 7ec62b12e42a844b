/** `WWW-Authenticate` (RFC 9110, section 11): a tokenizer, because real registries use all of its freedom. Pure. */

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  scheme: string;
  /** Parameter names in lower case. */
  parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
// Only behind a space: else a long header without one is read to its end again for each of its words.
const TOKEN68 = /[ \t]+[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
// A bare value: some registries leave out the quotes even where the grammar wants them (a realm with slashes).
const BARE = /[^\s,"]+/y;
const SPACE = /[ \t]*/y;
const SEPARATORS = /[ \t,]*/y;

/** All challenges of the header's lines, in order. What cannot be read is skipped; nothing is thrown. */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  if (header === undefined) return [];
  return (typeof header === 'string' ? [header] : header).flatMap(parseLine);
}

function parseLine(text: string): Challenge[] {
  const challenges: Challenge[] = [];
  let parameters: Map<string, string> | undefined;
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return undefined;
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  while (at < text.length) {
    take(SEPARATORS);
    const word = take(TOKEN);
    if (word === undefined) {
      at += 1;
      continue;
    }
    const afterWord = at;
    take(SPACE);
    if (parameters !== undefined && text[at] === '=') {
      at += 1;
      take(SPACE);
      const quoted = take(QUOTED);
      const value = quoted === undefined ? take(BARE) : quoted.replace(/\\(.)/g, '$1');
      parameters.set(word.toLowerCase(), value ?? '');
      continue;
    }
    at = afterWord;
    parameters = new Map();
    challenges.push({ scheme: word.toLowerCase(), parameters });
    take(TOKEN68); // no registry that we know uses it
  }
  return challenges;
}
