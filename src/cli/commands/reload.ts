/** `millpond reload`. */
import type { Command } from 'commander';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';

/** The API's answer. */
interface Reloaded {
  changes: { key: string; from?: unknown; to?: unknown }[];
  waitsForRestart: string[];
}

export function addReloadCommand(program: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withServerOptions(program.command('reload'))
    .description(
      'read the configuration file again; upstreams, access rules, warm lists and the log level change at once, all else waits for a restart. Exit code 2: the file has mistakes, and nothing has changed',
    )
    .option('--json', 'print JSON')
    .action(async (options: ServerOptions & { json?: true }) => {
      const reloaded = await (await operationsClient(options, surroundings)).json('POST', '/reload');
      stdout.write(
        options.json ? `${JSON.stringify(reloaded, undefined, 2)}\n` : format(reloaded as Reloaded),
      );
    });
}

function format({ changes, waitsForRestart }: Reloaded): string {
  if (changes.length === 0 && waitsForRestart.length === 0) return 'nothing has changed\n';
  return [
    ...changes.map(({ key, from, to }) => `${key}: ${valueText(from)} → ${valueText(to)}`),
    ...waitsForRestart.map((key) => `waits for a restart: ${key}`),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

function valueText(value: unknown): string {
  if (value === undefined) return '(not set)';
  return typeof value === 'string' ? value : JSON.stringify(value);
}
