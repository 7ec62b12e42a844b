/** `millpond config check` and `millpond config print`. */
import type { Command } from 'commander';
import { type ConfigProblem, formatProblem } from '../../config/errors.ts';
import { loadConfig } from '../../config/load.ts';
import { printConfig } from '../../config/print.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addConfigCommands(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, stdout, stderr } = surroundings;
  const config = program.command('config').description('check or show the configuration');

  withConfigOption(config.command('check'))
    .description(
      'report every mistake in the configuration, with variables that are not set and files that cannot be read; also rules that let in more than was meant',
    )
    .action(async (options: ConfigOption) => {
      const file = chosenConfigFile(options, surroundings);
      let warnings = 0;
      const warn = (warning: ConfigProblem) => {
        warnings += 1;
        stderr.write(`${formatProblem({ ...warning, message: `warning: ${warning.message}` })}\n`);
      };
      await loadConfig({ file, cwd, environment, warn });
      const found =
        warnings === 0 ? 'no problems' : `no errors, ${warnings} warning${warnings > 1 ? 's' : ''}`;
      stdout.write(`${file ?? 'built-in defaults'}: ${found}\n`);
    });

  withConfigOption(config.command('print'))
    .description('print the effective configuration, with defaults filled in and secrets redacted')
    .action(async (options: ConfigOption) => {
      stdout.write(printConfig(await loadConfig({ file: chosenConfigFile(options, surroundings), cwd })));
    });
}
