/** `millpond config check` and `millpond config print`. */
import type { Command } from 'commander';
import { formatProblem } from '../../config/errors.ts';
import { loadWithSources } from '../../config/load.ts';
import { printConfigWithOrigins } from '../../config/print.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface CheckOptions extends ConfigOption {
  strict?: true;
}

const VARIABLES = `
Each key with one value in a section with a fixed name can be set by a variable, which comes before the file:
MILLPOND_CACHE_MAX_SIZE for cache.maxSize. Lists, and what is in upstreams, have none.`;

export function addConfigCommands(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, stdout, stderr } = surroundings;
  const config = program
    .command('config')
    .description('check or show the configuration')
    .addHelpText('after', VARIABLES);

  withConfigOption(config.command('check'))
    .description(
      'report every mistake in the configuration, with variables that are not set and files that cannot be read; warn of what was probably not meant',
    )
    .option('--strict', 'end with 2 if there are warnings, too')
    .addHelpText(
      'after',
      '\nThe name of a warning stands behind it. A comment in the file silences it: # millpond: allow NAME',
    )
    .action(async (options: CheckOptions, command: Command) => {
      // Loaded only here: no other command looks that closely.
      const { checkConfig } = await import('../../config/check/check.ts');
      const { whyNotOurs } = await import('../../cache/store/own-directory.ts');
      const { nodeFileSystem } = await import('../../cache/store/file-system.ts');
      const file = chosenConfigFile(options, surroundings);
      const { sources, warnings } = await checkConfig({ file, cwd, environment }, (directory) =>
        whyNotOurs(directory, nodeFileSystem),
      );
      for (const { name, ...warning } of warnings)
        stderr.write(`${formatProblem({ ...warning, message: `warning: ${warning.message} [${name}]` })}\n`);
      const count = warnings.length === 1 ? '1 warning' : `${warnings.length} warnings`;
      const found = warnings.length === 0 ? 'no problems' : `no errors, ${count}`;
      stdout.write(`${[sources.name, ...sources.variables].join(', ')}: ${found}\n`);
      if (options.strict && warnings.length > 0) command.error(`error: ${count}, and --strict allows none`);
    });

  withConfigOption(config.command('print'))
    .description(
      'print the effective configuration, with defaults filled in and secrets redacted; behind each value stands where it comes from',
    )
    .addHelpText('after', VARIABLES)
    .action(async (options: ConfigOption) => {
      const file = chosenConfigFile(options, surroundings);
      const loaded = await loadWithSources({ file, cwd, environment, ignoreReferences: true });
      stdout.write(printConfigWithOrigins(loaded.config, (path) => loaded.sources.originOf(path)));
    });
}
