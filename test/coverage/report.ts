/**
 * Compares the line coverage of `src/` with the figure in figure.json, and lists the lines that were changed since then
 * and did not run: `node test/coverage/report.ts PROFILES [--update]`.
 *
 * PROFILES is the folder that NODE_V8_COVERAGE named while the tests ran. Ends with 1 when coverage has fallen.
 * `--update` writes the new figure instead.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { readCoverage } from './line-coverage.ts';

interface Figure {
  /** Percent of the lines with code. */
  lines: number;
  /** The commit that was measured. */
  commit: string;
}

const ROOT = resolve(import.meta.dirname, '../..');
const SOURCES = 'src';
const FIGURE = 'test/coverage/figure.json';
/** How many points coverage may fall: which lines run depends a little on how requests happen to meet. */
const TOLERANCE = 0.2;

const { values, positionals } = parseArgs({
  options: { update: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const coverage = readCoverage(resolve(positionals[0] ?? 'coverage'), ROOT, SOURCES);
const all = [...coverage.values()].flatMap((lines) => [...lines.values()]);
const percent = Number(((all.filter(Boolean).length / all.length) * 100).toFixed(2));
if (values.update) {
  const figure: Figure = { lines: percent, commit: git('rev-parse', 'HEAD').trim() };
  writeFileSync(join(ROOT, FIGURE), `${JSON.stringify(figure, undefined, 2)}\n`);
  say(`${FIGURE}: ${percent} % of ${all.length} lines of ${SOURCES}/ ran`);
} else {
  const figure = JSON.parse(readFileSync(join(ROOT, FIGURE), 'utf8')) as Figure;
  reportChange(figure);
  say(`${percent} % of ${all.length} lines of ${SOURCES}/ ran; it was ${figure.lines} %`);
  if (percent < figure.lines - TOLERANCE) {
    say(`That is more than ${TOLERANCE} points less. Test what did not run: the lines above.`);
    process.exitCode = 1;
  }
}

function reportChange(figure: Figure): void {
  const since = knownCommit(figure);
  if (since === undefined) {
    say(
      `The commit of ${FIGURE} is not in this clone: fetch the whole history to see the lines of the change.`,
    );
    return;
  }
  const changed = changedLines(since);
  const missed = changed.filter(({ path, line }) => coverage.get(path)?.get(line) === false);
  for (const { path, line, text } of missed) say(`${path}:${line}: ${text.trim()}`);
  say(`${missed.length} lines that were changed since ${since.slice(0, 7)} did not run`);
}

/** The commit that was measured; where history was rewritten since, the one that brought the figure. */
function knownCommit({ commit }: Figure): string | undefined {
  const brought = git('log', '-1', '--format=%H', '--', FIGURE).trim();
  return [commit, brought].find((id) => id !== '' && isAncestor(id));
}

function isAncestor(commit: string): boolean {
  try {
    git('merge-base', '--is-ancestor', commit, 'HEAD');
    return true;
  } catch {
    return false;
  }
}

/** Lines that are new or different in the working tree. */
function changedLines(since: string): { path: string; line: number; text: string }[] {
  const changed = [];
  let [path, line] = ['', 0];
  for (const text of git('diff', '--unified=0', '--no-prefix', '--no-ext-diff', since, '--', SOURCES).split(
    '\n',
  )) {
    const hunk = /^@@ -\S+ \+(\d+)/.exec(text);
    if (text.startsWith('+++ ')) path = text.slice('+++ '.length);
    else if (hunk !== null) line = Number(hunk[1]);
    else if (text.startsWith('+')) changed.push({ path, line: line++, text: text.slice(1) });
  }
  return changed;
}

function git(...args: string[]): string {
  return execFileSync('git', ['-C', ROOT, ...args], {
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
