/** `millpond token create`, `token list` and `token revoke`. They need no running server. */
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseDuration } from '../../config/fields/units.ts';
import { loadConfig } from '../../config/load.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import { table } from '../io/output.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface FileOption {
  file: string;
}

interface CreateOptions {
  expires: number;
  file?: string;
  printLine?: true;
}

interface ListOptions extends FileOption, ConfigOption {
  lastUses?: string;
  json?: true;
}

const FILE: [string, string] = ['--file <file>', 'tokens file that the server reads'];

export function addTokenCommands(program: Command, surroundings: Surroundings): void {
  const token = program
    .command('token')
    .description('create, list or revoke robot tokens; a running server notices by itself');
  addCreateCommand(token, surroundings);
  addListCommand(token, surroundings);
  addRevokeCommand(token, surroundings);
}

function addCreateCommand(token: Command, { cwd, clock, stdout, stderr }: Surroundings): void {
  const create = token.command('create');
  create
    .description(
      'create a token, add its line to the tokens file, and print its secret, which is kept nowhere',
    )
    .argument('<name>', 'name of the token, such as ci-team; its identity is token:ci-team')
    .requiredOption('--expires <duration>', 'how long it is valid, such as 90d', duration)
    .option('--file <file>', 'tokens file that the server reads; made if it is not there')
    .addOption(
      new Option(
        '--print-line',
        'change no file: print the line on stdout and the secret on stderr, for a tokens file that is read-only here, such as a Kubernetes Secret',
      ).conflicts('file'),
    )
    .action(async (name: string, { expires, file, printLine }: CreateOptions) => {
      const now = clock.now();
      const times = { created: now, expires: now + expires };
      try {
        if (file !== undefined) {
          const { addToken } = await tokenFiles();
          stdout.write(`${await addToken(resolve(cwd, file), name, times, clock)}\n`);
        } else if (printLine) {
          const { createToken } = await import('../../access/credentials/tokens/token-lines.ts');
          const { secret, line } = createToken(name, times);
          stdout.write(`${line}\n`);
          stderr.write(`${secret}\n`);
        } else {
          create.error("error: required option '--file <file>' not specified (or '--print-line')");
        }
      } catch (error) {
        if (error instanceof RangeError) create.error(`error: ${error.message}`);
        throw error;
      }
    });
}

function addListCommand(token: Command, surroundings: Surroundings): void {
  const { cwd, clock, stdout } = surroundings;
  withConfigOption(token.command('list'))
    .description('list tokens, with the last use of each at the server of this configuration')
    .requiredOption(...FILE)
    .option('--last-uses <file>', 'token-uses.json of the server (default: that in cache.directory)')
    .option('--json', 'print JSON')
    .action(async (options: ListOptions) => {
      const lastUses = options.lastUses ?? (await lastUsesOfServer(options, surroundings));
      const { listTokens } = await tokenFiles();
      const tokens = await listTokens(resolve(cwd, options.file), resolve(cwd, lastUses));
      if (options.json) {
        const list = tokens.map(({ name, created, expires, lastUsed }) => ({
          name,
          createdAt: isoTime(created),
          expiresAt: isoTime(expires),
          usedAt: lastUsed === undefined ? null : isoTime(lastUsed),
        }));
        stdout.write(`${JSON.stringify(list, undefined, 2)}\n`);
        return;
      }
      const rows = tokens.map(({ name, created, expires, lastUsed }) => [
        name,
        isoTime(created),
        `${isoTime(expires)}${expires <= clock.now() ? ', expired' : ''}`,
        lastUsed === undefined ? '-' : isoTime(lastUsed),
      ]);
      stdout.write(table([['NAME', 'CREATED', 'EXPIRES', 'LAST USED'], ...rows]));
    });
}

function addRevokeCommand(token: Command, { cwd, clock, stdout }: Surroundings): void {
  token
    .command('revoke')
    .description(
      'remove the line of a token: it is refused within 5 seconds, and so is what was issued for it',
    )
    .argument('<name>', 'name of the token')
    .requiredOption(...FILE)
    .action(async (name: string, { file }: FileOption) => {
      const { revokeToken } = await tokenFiles();
      await revokeToken(resolve(cwd, file), name, clock);
      stdout.write(`${name}: revoked\n`);
    });
}

/** Not loaded by the other commands. */
function tokenFiles() {
  return import('../../access/credentials/tokens/token-file.ts');
}

async function lastUsesOfServer(options: ConfigOption, surroundings: Surroundings): Promise<string> {
  const { cwd, environment } = surroundings;
  const { LAST_USES_FILE } = await import('../../access/credentials/tokens/last-uses.ts');
  const { cache } = await loadConfig({
    file: chosenConfigFile(options, surroundings),
    ...{ cwd, environment, ignoreReferences: true },
  });
  return join(cache.directory, LAST_USES_FILE);
}

function duration(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined)
    throw new InvalidArgumentError('It must be a duration with its unit, such as 12h or 90d.');
  return ms;
}

/** The tokens file has whole seconds, so they are enough here. */
function isoTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d{3}Z$/, 'Z');
}
