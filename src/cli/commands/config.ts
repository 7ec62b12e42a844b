/** `millpond config check` and `millpond config print`. */
import type { Command } from 'commander';
import { loadWithSources } from '../../config/load.ts';
import { printConfigWithOrigins } from '../../config/print.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addConfigCommands(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, stdout } = surroundings;
  const config = program.command('config').description('check or show the configuration');

  withConfigOption(config.command('check'))
    .description(
      'report every mistake in the configuration, with variables that are not set and files that cannot be read; also rules that let in more than was meant',
    )
    .action(async (options: ConfigOption) => {
      const file = chosenConfigFile(options, surroundings);
      const { sources } = await loadWithSources({ file, cwd, environment });
      const by = [sources.name, ...sources.variables].join(', ');
      stdout.write(`${by}: no problems\n`);
    });

  withConfigOption(config.command('print'))
    .description(
      'print the effective configuration, with defaults filled in and secrets redacted; behind each value stands where it comes from',
    )
    .action(async (options: ConfigOption) => {
      const file = chosenConfigFile(options, surroundings);
      const loaded = await loadWithSources({ file, cwd, environment, ignoreReferences: true });
      stdout.write(printConfigWithOrigins(loaded.config, (path) => loaded.sources.originOf(path)));
    });
}
