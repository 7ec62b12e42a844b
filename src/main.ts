#!/usr/bin/env -S node --max-semi-space-size=4
/**
 * Hands the real world to the command line. The only place that ends the process.
 *
 * The flag, in MiB: read buffers die young, and with V8's default of 16 they pile up before it looks. With 4 a cold blob
 * costs half the CPU (1.9 against 3.6 seconds a GB) and a hundred slow clients half the memory, measured. It is also in
 * `npm start` and in the Dockerfile.
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

/** Left to itself V8 would keep it for hours: 630 MB after a start with a million records, 400 MB with this. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}
