/**
 * The mutation run: `npm run test:mutation -- [WORD...]`. Breaks the product in one line at a time, in a copy of the
 * repository, and runs the tests that should notice. A mutation that no test notices is a test that is missing.
 *
 * @see {@link Mutation} for what a list holds, test/README.md for how to run and read it
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, rmSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { apply } from './apply.ts';
import type { Failure } from './first-failure.ts';
import { type ListedMutation, loadLists } from './load-lists.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const REPORTER = join(import.meta.dirname, 'first-failure.ts');
const WORKERS = 2;
const TIMEOUT_MS = 60_000;
/** What the tests need besides node_modules. */
const COPIED = ['src', 'test', 'bench', '*.json', '*.md', '*.yaml', 'Dockerfile', '.npmrc'];

const startedAt = performance.now();
const words = process.argv.slice(2);
const mutations = (await loadLists()).filter(({ area, file, promise }) =>
  words.every((word) => `${area} ${file} ${promise}`.includes(word)),
);
if (mutations.length === 0) fail(`no mutation's area, file or promise contains: ${words.join(', ')}`);

const base = await mkdtemp(join(tmpdir(), 'millpond-mutation-'));
const groups = new Set<number>();
process.once('exit', () => {
  for (const pid of groups) killGroup(pid);
  rmSync(base, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const [first, ...others] = await Promise.all(Array.from({ length: WORKERS }, (_, n) => makeCopy(n)));
if (first === undefined) fail('no copy was made');
await testUnchanged(first);

const waiting = [...mutations];
const survivors: ListedMutation[] = [];
await Promise.all([first, ...others].map(work));
say(
  `${mutations.length} mutations, ${mutations.length - survivors.length} killed, ${survivors.length} survived, ${elapsed(startedAt)}\n`,
);
process.exit(survivors.length === 0 ? 0 : 1);

/** @returns its folder */
async function makeCopy(n: number): Promise<string> {
  const copy = join(base, `copy-${n}`);
  await mkdir(join(base, `copy-${n}-temp`));
  for (const name of globSync(COPIED, { cwd: ROOT })) {
    await cp(join(ROOT, name), join(copy, name), { recursive: true });
  }
  await symlink(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  return copy;
}

/** A test that fails without any mutation would kill every one of its mutations. */
async function testUnchanged(copy: string): Promise<void> {
  const files = [...new Set(mutations.flatMap(({ tests }) => tests))].toSorted();
  say(`${files.length} test files without a mutation: `);
  const began = performance.now();
  const { failure } = await runTests(copy, files, TIMEOUT_MS * files.length);
  if (failure !== undefined) fail(`failed: ${failure.name}`);
  say(`passed, ${elapsed(began)}\n`);
}

async function work(copy: string): Promise<void> {
  for (let mutation = waiting.shift(); mutation !== undefined; mutation = waiting.shift()) {
    await tryOne(copy, mutation);
  }
}

async function tryOne(copy: string, mutation: ListedMutation): Promise<void> {
  const { area, file, promise, replace, by, tests } = mutation;
  const path = join(copy, file);
  const source = await readFile(path, 'utf8');
  await writeFile(path, apply(mutation, source));
  const began = performance.now();
  const { failure, timedOut } = await runTests(copy, tests, TIMEOUT_MS);
  await writeFile(path, source);
  if (failure === undefined && !timedOut) survivors.push(mutation);
  const verdict = timedOut
    ? 'killed by the timeout'
    : failure === undefined
      ? 'SURVIVED'
      : failure.crashed
        ? 'killed by a crash'
        : 'killed';
  const detail = verdict === 'SURVIVED' ? `\n  - ${replace}\n  + ${by}\n  ${tests.join(' ')}` : '';
  say(`${verdict}: ${area}: ${file}: ${promise} (${elapsed(began)})${detail}\n`);
}

interface Outcome {
  /** The first test that failed. */
  failure: Failure | undefined;
  timedOut: boolean;
}

/**
 * Runs test files until the first failure. They form a process group of their own, which is then killed with all that
 * the tests started; what they leave in the folder for temporary files is removed.
 */
async function runTests(copy: string, files: readonly string[], timeoutMs: number): Promise<Outcome> {
  const temp = `${copy}-temp`;
  const options = ['--test', `--test-reporter=${REPORTER}`, '--test-concurrency=2'];
  const child = spawn(process.execPath, [...options, ...files], {
    cwd: copy,
    env: { ...process.env, TMPDIR: temp },
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const { pid } = child;
  if (pid === undefined) fail(`${process.execPath} does not start`);
  groups.add(pid);
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const outcome: Outcome = { failure: undefined, timedOut: false };
  const timer = setTimeout(() => {
    outcome.timedOut = true;
    killGroup(pid);
  }, timeoutMs);
  for await (const line of createInterface(child.stdout)) {
    outcome.failure ??= JSON.parse(line) as Failure;
    killGroup(pid);
  }
  const [code] = await exited;
  clearTimeout(timer);
  if (code !== 0) outcome.failure ??= { name: `exit code ${code}`, crashed: true };
  killGroup(pid);
  groups.delete(pid);
  await rm(temp, { recursive: true, maxRetries: 3 });
  await mkdir(temp);
  return outcome;
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}

function elapsed(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

function say(text: string): void {
  process.stdout.write(text);
}

function fail(reason: string): never {
  say(`${reason}\n`);
  process.exit(1);
}
