/** What the shells complete, in the shells themselves, and the man page. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { runCommandLine } from '../../src/cli/program.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const run = promisify(execFile);

/** What a terminal shows bold: a letter, a backspace, and the letter again. */
const OVERSTRUCK = new RegExp(`.${String.fromCharCode(8)}`, 'g');

async function printed(...args: string[]): Promise<string> {
  let text = '';
  const exitCode = await runCommandLine(args, {
    ...{ version: '1.2.3', environment: {}, cwd: '/', serve: async () => undefined },
    clock: new FakeClock(),
    stdout: { write: (part) => void (text += part) },
    stderr: { write: () => undefined },
  });
  assert.equal(exitCode, 0);
  return text;
}

/** What a shell offers, one a line, for a line that ends where the cursor stands. */
const OFFERS: Record<string, (file: string, words: string[]) => Promise<string[]>> = {
  bash: async (file, words) => {
    const script = `source ${file}; COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _millpond; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return (await run('bash', ['-c', script])).stdout.split('\n');
  },
  zsh: async (file, words) => {
    // Outside its line editor zsh completes nothing, so these print what they are given.
    const script = `compdef() { :; }; compadd() { shift; printf '%s\\n' "$@"; }; _files() { :; }; source ${file}; words=(${words.map((word) => `'${word}'`).join(' ')}); CURRENT=${words.length}; _millpond`;
    const last = words.at(-1) ?? '';
    const { stdout } = await run('zsh', ['-f', '-c', script]);
    return stdout.split('\n').filter((word) => word.startsWith(last));
  },
  fish: async (file, words) => {
    const { stdout } = await run('fish', [
      '--no-config',
      '-c',
      `source ${file}; complete -C '${words.join(' ')}'`,
    ]);
    return stdout.split('\n').map((line) => line.split('\t')[0] ?? '');
  },
};

for (const [shell, offers] of Object.entries(OFFERS)) {
  test(`${shell} completes commands, their subcommands and their options`, {
    skip: missingPrograms(shell),
  }, async (t) => {
    const file = join(await tempDir(t), 'completion');
    await writeFile(file, await printed('completion', shell));
    assert.deepEqual(sorted(await offers(file, ['millpond', 'se'])), ['seal', 'serve']);
    assert.deepEqual(sorted(await offers(file, ['millpond', 'config', ''])).filter(isCommand), [
      'check',
      'print',
    ]);
    assert.deepEqual(sorted(await offers(file, ['millpond', 'list', '--s'])), ['--server', '--sort']);
    assert.deepEqual(sorted(await offers(file, ['millpond', 'token', 'list', '--j'])), ['--json']);
  });
}

test('the man page names every command and option, and groff finds nothing wrong with it', {
  skip: missingPrograms('man', 'groff'),
}, async (t) => {
  const file = join(await tempDir(t), 'millpond.1');
  const page = await printed('man');
  await writeFile(file, page);
  const { stdout, stderr } = await run('man', ['--warnings', '-l', file], {
    env: { ...process.env, MANWIDTH: '100', LC_ALL: 'C.UTF-8', MANPAGER: 'cat' },
  });
  assert.equal(stderr, '');
  const plain = stdout.replace(OVERSTRUCK, '');
  for (const text of [
    'millpond config check',
    'millpond doctor',
    '--sort <order>',
    'MILLPOND_SERVER',
    '--yes',
  ])
    assert.ok(plain.includes(text), text);
});

function sorted(words: string[]): string[] {
  return words.filter((word) => word !== '').toSorted();
}

function isCommand(word: string): boolean {
  return !word.startsWith('-');
}
