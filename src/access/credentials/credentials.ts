/** The identities that this mirror keeps itself: users of a password file, and robot tokens. */
import { availableParallelism } from 'node:os';
import type { Clock } from '../../clock.ts';
import { WatchedFiles } from '../../files/watched-files.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { CredentialIdentity } from '../identity.ts';
import { CheckQueue } from './passwords/check-queue.ts';
import { FailedLogins } from './passwords/failed-logins.ts';
import { parseHtpasswd } from './passwords/htpasswd.ts';
import { Users } from './passwords/users.ts';
import { LastUses } from './tokens/last-uses.ts';
import { RobotTokens, tokenList } from './tokens/robot-tokens.ts';

/** Checks share four threads with all reading of files, so two at most. One leaves a small machine a processor. */
const CHECKS_AT_A_TIME = availableParallelism() >= 4 ? 2 : 1;
const PLACES_IN_QUEUE = 64;

export interface CredentialsSettings {
  /** A password file. */
  htpasswd?: string | undefined;
  tokens?: { file: string /** Where last uses are written. */; lastUses: string } | undefined;
}

interface Context {
  clock: Clock;
  logger: Logger;
}

export class Credentials {
  /** Undefined if there is no password file. */
  readonly users: Users | undefined;
  /** Undefined if there is no tokens file. */
  readonly tokens: RobotTokens | undefined;
  readonly #lastUses: LastUses | undefined;

  private constructor(
    users: Users | undefined,
    tokens: { robots: RobotTokens; lastUses: LastUses } | undefined,
  ) {
    this.users = users;
    this.tokens = tokens?.robots;
    this.#lastUses = tokens?.lastUses;
  }

  /** @throws {FileError} a file cannot be used */
  static async open({ htpasswd, tokens }: CredentialsSettings, context: Context): Promise<Credentials> {
    const users = htpasswd === undefined ? undefined : await openUsers(htpasswd, context);
    return new Credentials(users, tokens === undefined ? undefined : await openTokens(tokens, context));
  }

  /** Whether tokens that were issued for an identity are still valid: its line is unchanged and has not expired. */
  async isCurrent({ kind, name, fingerprint }: CredentialIdentity): Promise<boolean> {
    const source = kind === 'user' ? this.users : this.tokens;
    return source !== undefined && source.isCurrent(name, fingerprint);
  }

  /** Writes when tokens were last used. */
  async close(): Promise<void> {
    await this.#lastUses?.close();
  }
}

async function openUsers(path: string, context: Context): Promise<Users> {
  const { verify } = await import('@node-rs/bcrypt'); // native code: loaded only where there are passwords
  const parse = ([content = Buffer.alloc(0)]: readonly Buffer[]) => parseHtpasswd(content, path);
  const file = await WatchedFiles.open({ paths: [path], secrets: [path], parse }, context);
  const queue = new CheckQueue({ atATime: CHECKS_AT_A_TIME, places: PLACES_IN_QUEUE });
  const failedLogins = new FailedLogins(context.clock);
  return new Users({ htpasswd: () => file.current(), verify, queue, failedLogins, clock: context.clock });
}

async function openTokens(
  { file: path, lastUses: usesPath }: { file: string; lastUses: string },
  context: Context,
): Promise<{ robots: RobotTokens; lastUses: LastUses }> {
  const parse = ([content = Buffer.alloc(0)]: readonly Buffer[]) => tokenList(content, path);
  const file = await WatchedFiles.open({ paths: [path], secrets: [path], parse }, context);
  const lastUses = await LastUses.open(usesPath, context);
  const robots = new RobotTokens({ tokens: () => file.current(), lastUses, clock: context.clock });
  return { robots, lastUses };
}
