/** A folder for configuration files, and the problems that loading one of them gives. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after } from 'node:test';
import { ConfigError } from '../../src/config/errors.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/schema.ts';
import type { Environment } from '../../src/config/secrets.ts';

export class ConfigFolder {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** To be called outside of all tests: the folder is removed after the last test of the file. */
  static async create(): Promise<ConfigFolder> {
    const path = await mkdtemp(join(tmpdir(), 'millpond-test-'));
    after(() => rm(path, { recursive: true, force: true }));
    return new ConfigFolder(path);
  }

  async write(name: string, text: string): Promise<string> {
    const file = join(this.path, name);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
    return file;
  }

  /** Loads `text` as `m.yaml`; with an environment, what it names outside is checked too. */
  async load(text: string, environment?: Environment): Promise<Config> {
    await this.write('m.yaml', text);
    return loadConfig({
      file: 'm.yaml',
      cwd: this.path,
      ...(environment === undefined ? {} : { environment }),
    });
  }

  /** The lines of the ConfigError that loading `text` throws. */
  async problems(text: string, environment?: Environment): Promise<string[]> {
    const outcome = await this.load(text, environment).then(
      () => assert.fail('the configuration was accepted'),
      (error: unknown) => error,
    );
    if (!(outcome instanceof ConfigError)) throw outcome;
    return outcome.message.split('\n');
  }
}
