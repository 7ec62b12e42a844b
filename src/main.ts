#!/usr/bin/env -S node --max-semi-space-size=4
/**
 * Connects the command line to the real world: files, clock, environment, signals. The only place that ends the process.
 *
 * The flag limits the young generation of V8's heap, in MiB. It saves memory: with a hundred slow clients of a cold blob,
 * the process grows by 57 to 69 MiB, and by 89 to 106 MiB with V8's default (test/soak/memory.test.ts allows 100). It saves
 * no CPU. V8 reads it only when it starts, so every way to start the program must set it: this line is for the installed
 * `millpond`, and the scripts of package.json and the Dockerfile have it, too (test/contract/dockerfile.test.ts).
 */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { startApp } from './app/app.ts';
import { nodeFileSystem } from './cache/store/file-system.ts';
import { runCommandLine } from './cli/program.ts';
import { systemClock } from './clock.ts';
import { bufferedOutput, prettyDestination } from './telemetry/log.ts';

const packageJson: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const version =
  typeof packageJson === 'object' && packageJson !== null && 'version' in packageJson
    ? String(packageJson.version)
    : 'unknown';

const exitCode = await runCommandLine(process.argv.slice(2), {
  version,
  environment: process.env,
  cwd: process.cwd(),
  stdout: process.stdout,
  stderr: process.stderr,
  serve: async (config) => {
    const output = bufferedOutput();
    const app = await startApp({
      config,
      environment: process.env,
      version,
      clock: systemClock,
      random: Math.random,
      fileSystem: nodeFileSystem,
      logDestination: config.log.format === 'pretty' ? prettyDestination(output) : output,
      collectGarbage,
      processMetrics: true,
    });
    await new Promise((resolve) => {
      process.once('SIGTERM', resolve);
      process.once('SIGINT', resolve);
    });
    await app.close();
    output.flushSync();
  },
});
process.exit(exitCode);

/** Frees the garbage of a start. V8 alone would keep it for hours: 630 MB after a start with a million records, not 400. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}
