/** `millpond serve`. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { loadConfig } from '../../config/load.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addServeCommand(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, serve } = surroundings;
  withConfigOption(program.command('serve'))
    .description(
      'run the mirror; stop it with SIGTERM or SIGINT. Variables such as MILLPOND_CACHE_MAX_SIZE come before the file: see millpond config --help',
    )
    .action(async (options: ConfigOption) => {
      const path = chosenConfigFile(options, surroundings);
      const load = () => loadConfig({ file: path, cwd, environment });
      await serve(await load(), path === undefined ? undefined : { path: resolve(cwd, path), load });
    });
}
