/** Takes over a changed configuration file while the mirror runs. */
import { type ConfigChange, changesBetween, isReloaded } from '../../config/changes.ts';
import { ConfigError, type ConfigProblem } from '../../config/errors.ts';
import type { Config } from '../../config/schema.ts';
import type { ConfigurationStatus } from '../../http/operations/status.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';

/** The file that the configuration came from. */
export interface ConfigFile {
  path: string;
  /** @throws {ConfigError} */
  load: () => Promise<Config>;
}

export interface ReloadContext {
  /** Takes over what can be taken over of a configuration: all of it, or nothing. @throws why it cannot be used */
  apply: (config: Config) => Promise<void>;
  now: () => number;
  logger: Logger;
  metrics: Metrics;
}

export type ReloadResult =
  | { successful: true; changes: ConfigChange[]; waitsForRestart: string[] }
  | { successful: false; problems: ConfigProblem[] };

export class Reloader {
  readonly #file: ConfigFile;
  readonly #context: ReloadContext;
  /** What the keys that are not reloaded still mean. */
  readonly #started: Config;
  #inUse: Config;
  #last: ConfigurationStatus['lastReload'] = null;
  #running: Promise<unknown> = Promise.resolve();

  constructor(file: ConfigFile, started: Config, context: ReloadContext) {
    this.#file = file;
    this.#started = started;
    this.#inUse = started;
    this.#context = context;
    this.#count(true);
  }

  get status(): ConfigurationStatus {
    return { file: this.#file.path, lastReload: this.#last, waitsForRestart: this.#waitsForRestart() };
  }

  /** Reloads one at a time: a second one waits, and reads the file after the first has read it. Never rejects. */
  reload(): Promise<ReloadResult> {
    const result = this.#running.then(() => this.#reload());
    this.#running = result;
    return result;
  }

  async #reload(): Promise<ReloadResult> {
    const { logger, now } = this.#context;
    const at = new Date(now()).toISOString();
    try {
      const config = await this.#file.load();
      await this.#context.apply(config);
      const changes = changesBetween(this.#inUse, config);
      this.#inUse = config;
      const waitsForRestart = this.#waitsForRestart();
      this.#last = { at, successful: true, problems: [] };
      this.#count(true);
      logger.info({ file: this.#file.path, changes, waitsForRestart }, 'configuration reloaded');
      return { successful: true, changes, waitsForRestart };
    } catch (error) {
      const problems = this.#problemsIn(error);
      for (const { file, line, col, path, message } of problems)
        logger.error(
          { at: `${file}:${line}:${col}`, key: path, problem: message },
          'configuration not reloaded: the old one stays in use',
        );
      this.#last = { at, successful: false, problems };
      this.#count(false);
      return { successful: false, problems };
    }
  }

  #waitsForRestart(): string[] {
    return changesBetween(this.#started, this.#inUse)
      .filter((change) => !isReloaded(change))
      .map(({ key }) => key);
  }

  /** A file of a certificate that is gone, for example, is found only when an upstream is created. */
  #problemsIn(error: unknown): ConfigProblem[] {
    if (error instanceof ConfigError) return [...error.problems];
    const message = error instanceof Error ? error.message : String(error);
    return [{ file: this.#file.path, line: 1, col: 1, path: '', message }];
  }

  #count(successful: boolean): void {
    const { metrics, now } = this.#context;
    metrics.configReloadSuccessful.set(successful ? 1 : 0);
    if (successful) metrics.configReloadTime.set(now() / 1000);
  }
}
