#!/usr/bin/env -S node --max-semi-space-size=4
/** Connects the command line to the real world: files, clock, environment, signals. The only place that ends the process. */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { systemClock } from './clock.ts';

const [command] = process.argv.slice(2);
// Before the rest of the program is loaded: this starts the process again.
if (command === 'serve') limitYoungGeneration();
const { runCommandLine } = await import('./cli/program.ts');

const packageJson: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const version =
  typeof packageJson === 'object' && packageJson !== null && 'version' in packageJson
    ? String(packageJson.version)
    : 'unknown';

const exitCode = await runCommandLine(process.argv.slice(2), {
  version,
  environment: process.env,
  cwd: process.cwd(),
  clock: systemClock,
  stdout: process.stdout,
  stderr: process.stderr,
  serve: async (config, configFile) => {
    process.umask(0o077); // LevelDB makes its files itself, and they hold names of private images
    // Not loaded by the other commands: together they take half a second.
    const [{ startApp }, { nodeFileSystem }, { bufferedOutput, prettyDestination }] = await Promise.all([
      import('./app/app.ts'),
      import('./cache/store/file-system.ts'),
      import('./telemetry/log.ts'),
    ]);
    const output = bufferedOutput();
    // Without a handler, SIGHUP ends the process, also one that is still starting.
    let reload = async () => {};
    process.on('SIGHUP', () => void reload());
    const app = await startApp({
      config,
      configFile,
      environment: process.env,
      version,
      clock: systemClock,
      random: Math.random,
      fileSystem: nodeFileSystem,
      logDestination: isPretty(config.log.format) ? prettyDestination(output) : output,
      collectGarbage,
      processMetrics: true,
    });
    reload = () => app.reload();
    await new Promise((resolve) => {
      process.once('SIGTERM', resolve);
      process.once('SIGINT', resolve);
    });
    await app.close();
    output.flushSync();
  },
});
await endProcess(exitCode);

/**
 * Ends the process without waiting for what does not answer. `process.exit` waits for calls of the file system and of the
 * resolver that are under way: for ever, for one on a network drive that is gone. A process that becomes another one does
 * not; but it would lose the last lines of the log, which may be among these calls. So it waits a second for them.
 */
async function endProcess(code: number): Promise<void> {
  const isWaiting = () => process.getActiveResourcesInfo().some((kind) => /^(FSReq|GetAddrInfo)/.test(kind));
  for (let look = 0; look < 50 && isWaiting(); look += 1) await systemClock.sleep(20);
  const args = [process.execPath, '-e', `process.exitCode = ${code}`];
  if (isWaiting()) process.execve?.(process.execPath, args, {}); // no such call on Windows
  process.exit(code);
}

/**
 * Starts the program again, as the same process, with a limit for the young generation of V8's heap (in MiB), unless its
 * user has set one. V8 reads the limit only when it starts.
 *
 * It saves memory: with a hundred slow clients of a cold blob, the process grows by 57 to 69 MiB, and by 89 to 106 MiB
 * with V8's default (test/soak/memory.test.ts allows 100). It saves no CPU. The second start takes 60 ms, so the scripts of
 * package.json, the image and the first line of this file set the limit themselves. This is for `node dist/main.js`.
 */
function limitYoungGeneration(): void {
  const option = '--max-semi-space-size';
  const { NODE_OPTIONS: nodeOptions = '' } = process.env;
  const options = [...process.execArgv, ...nodeOptions.split(/\s/)];
  if (options.some((each) => each.startsWith(option))) return;
  const args = [process.execPath, `${option}=4`, ...process.execArgv, ...process.argv.slice(1)];
  process.execve?.(process.execPath, args); // no such call on Windows
}

/** Frees the garbage of a start. V8 alone would keep it for hours: 630 MB after a start with a million records, not 400. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

function isPretty(format: 'auto' | 'json' | 'pretty'): boolean {
  return format === 'pretty' || (format === 'auto' && process.stdout.isTTY);
}
