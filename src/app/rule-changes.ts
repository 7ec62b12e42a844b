/** Takes over the rules of access control when the configuration file changes. */
import { isDeepStrictEqual } from 'node:util';
import type { AccessControl } from '../access/control/access-control.ts';
import { WatchedFiles } from '../access/watched-files.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';

const LOOK_MS = 1_000;

/** The file that the configuration came from. */
export interface ConfigFile {
  path: string;
  /** @throws {ConfigError} */
  load: () => Promise<Config>;
}

/**
 * A rule that is removed ends within 5 s. All other changes wait for a restart, and the log says so. A file with mistakes
 * changes nothing.
 */
export async function followRules(
  { path, load }: ConfigFile,
  access: AccessControl,
  context: { clock: Clock; logger: Logger },
): Promise<Disposable> {
  const files = await WatchedFiles.open({ paths: [path], parse: load }, context);
  let inUse = await files.current();
  const look = async () => {
    const config = await files.current();
    if (config === inUse) return;
    const [before, now] = [inUse.access, config.access];
    if (!isDeepStrictEqual(withoutRules(inUse), withoutRules(config)))
      context.logger.warn(
        { file: path },
        'the configuration has changed: all but access.rules waits for a restart',
      );
    inUse = config;
    if (now === undefined || isDeepStrictEqual(before?.rules, now.rules)) return;
    access.useRules(now.rules);
    context.logger.info({ file: path, rules: now.rules.length }, 'changed rules are in use');
  };
  return context.clock.every(LOOK_MS, () => void look());
}

function withoutRules({ access, ...rest }: Config): unknown {
  return access === undefined ? rest : { ...rest, access: { ...access, rules: [] } };
}
