/** A Trivy that misbehaves on command, as a program on the disk. */
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { ScanSettings } from '../../src/policy/parts/scan/scanner/settings.ts';
import { TrivyScanner } from '../../src/policy/parts/scan/trivy/trivy-scanner.ts';
import { cleanUp } from './cleanup.ts';
import { openRoute, scanSettings } from './scans.ts';
import { tempDir } from './temp-dir.ts';

export interface Noted {
  scan?: { args: string[]; env: Record<string, string>; cwd: string; pid: number };
  pulled?: true;
  grandchild?: number;
  update?: string;
  /** Whether the program was told how old its database is. */
  known?: boolean;
  pid?: number;
}

export interface FakeScannerOptions extends Partial<ScanSettings> {
  /** How it misbehaves: a case of test/helpers/fake-trivy.ts. */
  fake?: string;
  isSealed?: boolean;
  clock?: Clock;
}

/** A scanner whose Trivy is the fake one; `noted` is what that has seen, `lines` the log. */
export async function fakeScanner(t: TestContext, options: FakeScannerOptions = {}) {
  const { fake = '', isSealed = true, clock = systemClock, environment, ...settings } = options;
  const home = await tempDir(t);
  const program = join(home, 'trivy');
  const source = resolve(import.meta.dirname, 'fake-trivy.ts');
  await writeFile(program, `#!/bin/sh\nexec '${process.execPath}' '${source}' "$@"\n`);
  await chmod(program, 0o755);
  const log = join(home, 'log');
  const directory = join(home, 'scanner');
  const route = await openRoute(t);
  const lines: Record<string, unknown>[] = [];
  const logger = pino(
    { level: 'warn' },
    { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const scanner = await TrivyScanner.open(
    scanSettings({
      ...{ directory, trivy: program, environment: { FAKE: fake, FAKE_LOG: log, ...environment } },
      ...settings,
    }),
    {
      ...{ clock, logger, route, isSealed: () => isSealed },
      path: process.env['PATH'] ?? '',
    },
  );
  cleanUp(t, () => scanner[Symbol.asyncDispose]());
  const noted = async (): Promise<Noted[]> => {
    const text = await readFile(log, 'utf8').catch(() => '');
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Noted);
  };
  return { scanner, home, program, directory, noted, lines };
}
