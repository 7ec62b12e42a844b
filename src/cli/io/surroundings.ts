/** What every command receives from outside. */
import type { Clock } from '../../clock.ts';
import type { Config } from '../../config/schema.ts';
import type { Environment } from '../../config/secrets.ts';

/** Everything that commands use of the world outside. */
export interface Surroundings {
  version: string;
  environment: Environment;
  /** The folder that relative paths start from. */
  cwd: string;
  clock: Clock;
  stdout: TextOutput;
  stderr: TextOutput;
  /**
   * Runs the server. Resolves when the server has stopped.
   *
   * @param file where the configuration came from; undefined: the built-in defaults
   */
  serve: (config: Config, file: { path: string; load: () => Promise<Config> } | undefined) => Promise<void>;
}

export interface TextOutput {
  write(text: string): unknown;
}
