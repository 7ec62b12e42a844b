/** A directory of the test's own, removed when the test has ended. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { cleanUp } from './cleanup.ts';

export async function tempDir(t: Pick<TestContext, 'after'>): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'millpond-test-'));
  cleanUp(t, () => rm(path, { recursive: true, force: true }));
  return path;
}
