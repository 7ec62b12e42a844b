/** `millpond config check` and `millpond config print`. */
import type { Command } from 'commander';
import { loadConfig } from '../../config/load.ts';
import { printConfig } from '../../config/print.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addConfigCommands(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, stdout } = surroundings;
  const config = program.command('config').description('check or show the configuration');

  withConfigOption(config.command('check'))
    .description(
      'report every mistake in the configuration, with variables that are not set and files that cannot be read',
    )
    .action(async (options: ConfigOption) => {
      const file = chosenConfigFile(options, surroundings);
      await loadConfig({ file, cwd, environment });
      stdout.write(`${file ?? 'built-in defaults'}: no problems\n`);
    });

  withConfigOption(config.command('print'))
    .description('print the effective configuration, with defaults filled in and secrets redacted')
    .action(async (options: ConfigOption) => {
      stdout.write(printConfig(await loadConfig({ file: chosenConfigFile(options, surroundings), cwd })));
    });
}
