/** What every command is given, and the option that most of them share. */
import type { Command } from 'commander';
import type { Config } from '../../config/schema.ts';
import type { Environment } from '../../config/secrets.ts';

/** Everything that commands use of the world outside. */
export interface Surroundings {
  version: string;
  environment: Environment;
  /** Folder that relative paths start from. */
  cwd: string;
  stdout: TextOutput;
  stderr: TextOutput;
  /** Runs the server until it has stopped. */
  serve: (config: Config) => Promise<void>;
}

export interface TextOutput {
  write(text: string): unknown;
}

/** What {@link withConfigOption} leaves for a command's action. */
export interface ConfigOption {
  config?: string;
}

export function withConfigOption(command: Command): Command {
  return command.option(
    '-c, --config <file>',
    'configuration file (default: $MILLPOND_CONFIG, else the built-in defaults)',
  );
}

/** The configuration file that was asked for; `undefined` means the built-in defaults. */
export function chosenConfigFile(options: ConfigOption, { environment }: Surroundings): string | undefined {
  return options.config ?? (environment['MILLPOND_CONFIG'] || undefined);
}
