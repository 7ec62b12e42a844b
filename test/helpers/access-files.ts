/** The files that access control reads, with users and robot tokens of a test's own. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from '@node-rs/bcrypt';
import { addToken } from '../../src/access/credentials/tokens/token-file.ts';
import type { Clock } from '../../src/clock.ts';

const LOWEST_COST = 4;
const DAY = 24 * 3_600_000;

/** @returns the path */
export async function writeHtpasswd(
  directory: string,
  passwordByUser: Record<string, string>,
): Promise<string> {
  const path = join(directory, 'htpasswd');
  const lines = Object.entries(passwordByUser).map(
    ([user, password]) => `${user}:${hashSync(password, LOWEST_COST)}\n`,
  );
  await writeFile(path, lines.join(''), { mode: 0o600 });
  return path;
}

/** Makes a robot token that lives for 90 days. @returns its secret */
export async function createRobotToken(
  directory: string,
  name: string,
  clock: Clock,
): Promise<{ path: string; secret: string }> {
  const path = join(directory, 'tokens');
  const times = { created: clock.now(), expires: clock.now() + 90 * DAY };
  return { path, secret: await addToken(path, name, times, clock) };
}

export function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
}
