/**
 * The password file of Apache's `htpasswd -B`: `name:hash` a line, bcrypt only. Pure.
 *
 * As in Apache (mod_authn_file), spaces around a line do not count, and empty lines and lines that begin with `#` are
 * skipped. Apache also skips over what it does not understand. Here that is an error, because a user who is shut out
 * by a typing mistake should be noticed when the file is read.
 */
import { FileError } from '../../../files/errors.ts';
import { fingerprintOf } from '../../identity.ts';

export interface PasswordLine {
  /** A bcrypt hash: `$2y$10$…`. */
  readonly hash: string;
  readonly fingerprint: string;
}

export interface Htpasswd {
  readonly lineByName: ReadonlyMap<string, PasswordLine>;
  /** Stands in for the hash of an unknown user, so that a check takes the same time. No password matches it. */
  readonly dummyHash: string;
}

/**
 * Bcrypt encodes 16 bytes of salt and 23 bytes of hash, 6 bits a character, so the last character of each has few
 * possible values. The library matches no password to any other hash, so such a line would shut its user out.
 */
const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]$/;
/** Below 4 bcrypt is not defined. One check of cost 14 takes a second, and each more doubles it. */
const LOWEST_COST = 4;
const HIGHEST_COST = 14;
/** Of the dummy hash of a file without users. */
const DEFAULT_COST = 10;
/** The most that `htpasswd` writes. */
export const LONGEST_NAME_BYTES = 255;

/** @param file named in errors @throws {FileError} with the first bad line */
export function parseHtpasswd(content: Buffer, file: string): Htpasswd {
  const lineByName = new Map<string, PasswordLine>();
  const countByCost = new Map<number, number>();
  for (const [index, rawLine] of decode(content, file).split('\n').entries()) {
    const text = rawLine.trim();
    if (text === '' || text.startsWith('#')) continue;
    const wrong = (problem: string) => new FileError(file, problem, { line: index + 1 });
    const colon = text.indexOf(':');
    const [name, hash] = [text.slice(0, colon), text.slice(colon + 1)];
    if (colon < 1) throw wrong('not a line of the form NAME:HASH');
    if (/\p{Cc}/u.test(name) || Buffer.byteLength(name) > LONGEST_NAME_BYTES) {
      throw wrong(`the name holds a control character or is longer than ${LONGEST_NAME_BYTES} bytes`);
    }
    const [, digits] = BCRYPT.exec(hash) ?? [];
    if (digits === undefined) {
      throw wrong('the hash is not bcrypt ($2a$, $2b$ or $2y$): write the line with `htpasswd -B`');
    }
    const cost = Number(digits);
    if (cost < LOWEST_COST || cost > HIGHEST_COST) {
      throw wrong(`bcrypt cost ${cost} is not between ${LOWEST_COST} and ${HIGHEST_COST}`);
    }
    if (lineByName.has(name)) throw wrong('the name is there already, on a line above');
    lineByName.set(name, { hash, fingerprint: fingerprintOf('user', name, hash) });
    countByCost.set(cost, (countByCost.get(cost) ?? 0) + 1);
  }
  const [usualCost = DEFAULT_COST] = mostFrequent(countByCost);
  return { lineByName, dummyHash: dummyHashOf(usualCost) };
}

function decode(content: Buffer, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch (error) {
    throw new FileError(file, 'not UTF-8', { cause: error });
  }
}

function mostFrequent(countByCost: ReadonlyMap<number, number>): number[] {
  return [...countByCost].toSorted(([, a], [, b]) => b - a).map(([cost]) => cost);
}

function dummyHashOf(cost: number): string {
  return `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(53)}`;
}
