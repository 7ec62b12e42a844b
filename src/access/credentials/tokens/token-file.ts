/**
 * Changes to the tokens file, for the command line. No server needs to run; one that does sees the change by itself.
 *
 * A change keeps every byte of other lines, the file's mode and its owner. It takes effect by rename, so a reader sees
 * the old file or the new one. A symlink stays, and the file that it leads to is changed.
 */
import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Clock } from '../../../clock.ts';
import { errnoOf, FileError } from '../../../files/errors.ts';
import { withFileLock } from './file-lock.ts';
import { readLastUses } from './last-uses.ts';
import { createToken, NEW_FILE_HEADER, parseTokens, TOKENS_ENCODING, type TokenLine } from './token-lines.ts';

const NEW_FILE_MODE = 0o600;
const PERMISSIONS = 0o7777;

export interface ListedToken extends TokenLine {
  /** Milliseconds since the epoch; undefined if it was never used, as far as this mirror knows. */
  readonly lastUsed: number | undefined;
}

/**
 * Makes a token and adds its line. Creates the file if it is not there.
 *
 * @param times milliseconds since the epoch; parts of a second are dropped
 * @returns the secret, which is not kept anywhere
 * @throws {RangeError} the name or the times cannot be written in a line
 * @throws {FileError} there is such a token already, or the file cannot be read or changed
 */
export async function addToken(
  path: string,
  name: string,
  times: { created: number; expires: number },
  clock: Clock,
): Promise<string> {
  const { secret, line } = createToken(name, times);
  await change(path, clock, (text = NEW_FILE_HEADER) => {
    if (parseTokens(text, path).some((token) => token.name === name)) {
      throw new FileError(path, `there is a token ${name} already: revoke it, or choose another name`);
    }
    const isEnded = text === '' || text.endsWith('\n');
    return `${text}${isEnded ? '' : '\n'}${line}\n`;
  });
  return secret;
}

/** @throws {FileError} there is no such token, or the file cannot be read or changed */
export function revokeToken(path: string, name: string, clock: Clock): Promise<void> {
  return change(path, clock, (text) => {
    if (text === undefined) throw missing(path);
    if (!parseTokens(text, path).some((token) => token.name === name)) {
      throw new FileError(path, `there is no token ${name}`);
    }
    const isTokens = (line: string) => line.trim().split(/[ \t]/, 1)[0] === name;
    return text
      .split(/(?<=\n)/)
      .filter((line) => !isTokens(line))
      .join('');
  });
}

/**
 * In the order of the file.
 *
 * @param lastUses the file that the server writes; undefined if there is none
 * @throws {FileError} a file cannot be read
 */
export async function listTokens(path: string, lastUses: string | undefined): Promise<ListedToken[]> {
  const found = await read(path);
  if (found === undefined) throw missing(path);
  const timeByName = lastUses === undefined ? new Map<string, number>() : await readLastUses(lastUses);
  return parseTokens(found.text, path).map((token) => {
    const time = timeByName.get(token.name);
    // Ignores an older use: that was another token with this name.
    return { ...token, lastUsed: time !== undefined && time >= token.created ? time : undefined };
  });
}

async function change(path: string, clock: Clock, edit: (text: string | undefined) => string): Promise<void> {
  const file = await targetOf(path);
  await withFileLock(file, clock, async (isHeld) => {
    const old = await read(file);
    const text = edit(old?.text);
    const unfinished = join(dirname(file), `.${basename(file)}.${randomUUID()}`);
    try {
      await write(unfinished, text, old);
      if (!(await isHeld())) throw new FileError(path, 'another process has taken the lock: try again');
      await rename(unfinished, file);
    } catch (error) {
      await rm(unfinished, { force: true });
      if (error instanceof FileError) throw error;
      throw new FileError(path, `cannot be changed (${errnoOf(error)})`, { cause: error });
    }
    await syncFolder(dirname(file));
  });
}

function missing(path: string): FileError {
  return new FileError(path, 'there is no such file');
}

/** The file itself, if `path` is a symlink: renaming over the symlink would leave the file as it was. */
async function targetOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return resolve(path);
    throw new FileError(path, `cannot be read (${errnoOf(error)})`, { cause: error });
  }
}

interface ReadFile {
  text: string;
  mode: number;
  uid: number;
  gid: number;
}

async function read(path: string): Promise<ReadFile | undefined> {
  try {
    const { mode, uid, gid } = await stat(path);
    return { text: await readFile(path, TOKENS_ENCODING), mode: mode & PERMISSIONS, uid, gid };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw new FileError(path, `cannot be read (${errnoOf(error)})`, { cause: error });
  }
}

async function write(path: string, text: string, like: ReadFile | undefined): Promise<void> {
  await using file = await open(path, 'wx', NEW_FILE_MODE);
  if (like !== undefined) await becomeLike(file, like);
  await file.writeFile(text, TOKENS_ENCODING);
  await file.sync();
}

/** Keeps owner and mode: when root changes the file, the server must still be able to read it. */
async function becomeLike(file: FileHandle, { mode, uid, gid }: ReadFile): Promise<void> {
  const now = await file.stat();
  if (now.uid !== uid || now.gid !== gid) await file.chown(uid, gid);
  await file.chmod(mode); // after the owner, because a change of owner takes bits away
}

/** Syncs a folder: without that, a power failure could bring a revoked token back. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
