/** `millpond serve`. */
import type { Command } from 'commander';
import { loadConfig } from '../../config/load.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addServeCommand(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, serve } = surroundings;
  withConfigOption(program.command('serve'))
    .description('run the mirror; stop it with SIGTERM or SIGINT')
    .action(async (options: ConfigOption) => {
      await serve(await loadConfig({ file: chosenConfigFile(options, surroundings), cwd, environment }));
    });
}
