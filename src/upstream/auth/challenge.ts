/** Parses `WWW-Authenticate` (RFC 9110, section 11) with a tokenizer, because registries use all of its forms. Pure. */

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  scheme: string;
  /** Parameter names in lower case. */
  parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
// Requires a space before it. Else each word of a long header without spaces would read the rest again: quadratic time.
const TOKEN68 = /[ \t]+[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
// A value without quotes. Some registries omit them even where the grammar requires them (a realm with slashes).
const BARE = /[^\s,"]+/y;
const SPACE = /[ \t]*/y;
const SEPARATORS = /[ \t,]*/y;

/** Parses all header lines. Skips what it cannot read, and never throws. @returns the challenges in order */
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
    take(TOKEN68); // skipped: no known registry uses it
  }
  return challenges;
}

/** Whether the challenge demands a token, and says where to get it. */
export function isBearerWithRealm({ scheme, parameters }: Challenge): boolean {
  return scheme === 'bearer' && parameters.has('realm');
}
