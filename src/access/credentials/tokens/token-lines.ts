/**
 * The tokens file: one robot token a line, readable by people. Pure.
 *
 *     ci-team sha256:<64 hex digits> 2026-11-25T10:00:00Z 2027-02-23T10:00:00Z
 *
 * Name, SHA-256 of the whole secret (`printf %s mpt_… | sha256sum`), when it was made, when it expires; separated by
 * spaces or tabs. Empty lines and lines that begin with `#` are skipped, any other line is an error.
 *
 * A fast hash is enough: the secret is 256 random bits, and nobody can try that many.
 */
import { hash, randomBytes } from 'node:crypto';
import { FileError } from '../../../files/errors.ts';
import { fingerprintOf } from '../../identity.ts';

export interface TokenLine {
  readonly name: string;
  /** SHA-256 of the secret, 64 hex digits. */
  readonly secretHash: string;
  /** Milliseconds since the epoch, whole seconds. */
  readonly created: number;
  /** The first moment at which it is refused: milliseconds since the epoch, whole seconds. */
  readonly expires: number;
  readonly fingerprint: string;
}

/**
 * The encoding that `parseTokens` reads. Latin-1 keeps every byte of a comment as it is. The format itself is ASCII.
 */
export const TOKENS_ENCODING = 'latin1';

export const NEW_FILE_HEADER = `# Robot tokens of Millpond, one a line: name, SHA-256 of the secret, when it was made, when it expires (UTC).
# \`millpond token create\` adds a line. A token ends a few seconds after its line is removed.
`;

const NAME = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;
const NAME_RULE =
  'a token name has 1 to 64 of a-z, 0-9, ".", "_" and "-", and begins and ends with a letter or digit';
const SECRET_PREFIX = 'mpt_';
const SECRET_BYTES = 32;
const LINE = /^(\S+)[ \t]+sha256:([0-9a-f]{64})[ \t]+(\S+)[ \t]+(\S+)$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

export function isTokenName(text: string): boolean {
  return NAME.test(text);
}

/** Whether `text` has the form of a robot token's secret. It is then not tried as anything else. */
export function isTokenSecret(text: string): boolean {
  return text.startsWith(SECRET_PREFIX);
}

export function hashOfSecret(secret: string): string {
  return hash('sha256', secret, 'hex');
}

/**
 * Makes a new secret, and the line that admits it. The secret is not kept anywhere.
 *
 * @param times milliseconds since the epoch; parts of a second are dropped
 * @throws {RangeError} the name or the times cannot be written in a line
 */
export function createToken(
  name: string,
  { created, expires }: { created: number; expires: number },
): { secret: string; line: string } {
  if (!isTokenName(name)) throw new RangeError(NAME_RULE);
  const [from, until] = [formatTime(created), formatTime(expires)];
  if (until <= from) throw new RangeError('a token must expire later than it is made');
  const secret = SECRET_PREFIX + randomBytes(SECRET_BYTES).toString('base64url');
  return { secret, line: `${name} sha256:${hashOfSecret(secret)} ${from} ${until}` };
}

/** @param file named in errors @throws {FileError} with the first bad line */
export function parseTokens(text: string, file: string): TokenLine[] {
  const tokens: TokenLine[] = [];
  const lineOf = new Map<string, number>();
  for (const [index, rawLine] of text.split('\n').entries()) {
    const line = rawLine.trim();
    if (line === '' || line.startsWith('#')) continue;
    const number = index + 1;
    const wrong = (problem: string) => new FileError(file, problem, { line: number });
    const [, name = '', secretHash = '', created = '', expires = ''] = LINE.exec(line) ?? [];
    if (name === '') throw wrong('not a line of the form NAME sha256:HEX CREATED EXPIRES');
    if (!isTokenName(name)) throw wrong(NAME_RULE);
    const times = { created: parseTime(created), expires: parseTime(expires) };
    if (times.created === undefined || times.expires === undefined) {
      throw wrong('a time is not of the form 2026-11-25T10:00:00Z');
    }
    for (const [what, key] of [
      ['name', name],
      ['secret', secretHash],
    ] as const) {
      const first = lineOf.get(key);
      if (first !== undefined) throw wrong(`the ${what} is there already, on line ${first}`);
      lineOf.set(key, number);
    }
    const fingerprint = fingerprintOf('token', name, secretHash);
    tokens.push({ name, secretHash, created: times.created, expires: times.expires, fingerprint });
  }
  return tokens;
}

function formatTime(ms: number): string {
  const text = Number.isFinite(ms) && Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : '';
  const seconds = text.replace(/\.\d{3}Z$/, 'Z');
  if (!TIME.test(seconds)) throw new RangeError('a time is not between the years 0 and 9999');
  return seconds;
}

/** Writes the time again and compares, because `Date.parse` takes 30 February for 2 March. */
function parseTime(text: string): number | undefined {
  if (!TIME.test(text)) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) || formatTime(ms) !== text ? undefined : ms;
}
