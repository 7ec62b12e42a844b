import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';

const SRC = resolve(import.meta.dirname, '../src');

/** Which layers each layer may import; a layer may always import itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  main: ['app', 'cli', 'config', 'cache', 'clock', 'telemetry'],
  app: [
    'fleet',
    'policy',
    'config',
    'access',
    'http',
    'transfer',
    'mirror',
    'cache',
    'upstream',
    'telemetry',
    'oci',
    'clock',
    'request-context',
  ],
  cli: ['app', 'config', 'transfer', 'access', 'cache', 'oci', 'clock'],
  config: ['policy', 'access', 'files', 'telemetry', 'oci'],
  http: [
    'fleet',
    'access',
    'files',
    'policy',
    'transfer',
    'mirror',
    'cache',
    'upstream',
    'telemetry',
    'oci',
    'clock',
    'request-context',
  ],
  policy: [
    'access',
    'files',
    'mirror',
    'cache',
    'upstream',
    'telemetry',
    'oci',
    'clock',
    'single-flight',
    'request-context',
  ],
  fleet: ['files', 'cache', 'upstream', 'telemetry', 'oci', 'clock', 'single-flight', 'request-context'],
  transfer: ['policy', 'mirror', 'cache', 'upstream', 'oci', 'clock', 'telemetry', 'request-context'],
  mirror: ['cache', 'upstream', 'telemetry', 'oci', 'clock', 'single-flight', 'request-context'],
  cache: ['telemetry', 'oci', 'clock', 'single-flight'],
  access: ['files', 'oci', 'telemetry', 'clock', 'single-flight', 'request-context'],
  upstream: ['telemetry', 'oci', 'clock', 'single-flight', 'request-context'],
  files: ['clock', 'telemetry'],
  telemetry: ['oci'],
  oci: [],
  clock: [],
  'single-flight': [],
  'request-context': [],
};

/** Lines: a file that passes this is asking to be two. */
const FILE_BUDGET = 300;
/** Files: a folder that passes this is asking for floors. */
const FOLDER_BUDGET = 12;

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, text: readFileSync(join(SRC, name), 'utf8') }));

const imports = files.flatMap(({ name, text }) =>
  [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((match) => ({
    from: name,
    to: relative(SRC, resolve(SRC, dirname(name), match[1] ?? '')),
  })),
);

function layer(file: string): string {
  return file.includes('/') ? (file.split('/')[0] ?? '') : file.replace(/\.ts$/, '');
}

/** A file's folder; a file of no folder stands for itself. */
function roomOf(file: string): string {
  return file.includes('/') ? dirname(file) : file;
}

test('imports run one way: main, app, http, mirror, cache or upstream, oci', () => {
  const wrong = imports.filter(({ from, to }) => {
    const [a, b] = [layer(from), layer(to)];
    return a !== b && !(MAY_IMPORT[a] ?? []).includes(b);
  });
  assert.deepEqual(wrong, []);
  assert.ok(imports.length > 50, 'the imports were found at all');
});

test('no file imports itself in a circle', () => {
  const targets = Map.groupBy(imports, ({ from }) => from);
  const done = new Set<string>();
  const walk = (file: string, path: string[]): void => {
    assert.ok(!path.includes(file), `circle: ${[...path, file].join(' → ')}`);
    if (done.has(file)) return;
    for (const { to } of targets.get(file) ?? []) walk(to, [...path, file]);
    done.add(file);
  };
  for (const { name } of files) walk(name, []);
});

test('oci does no I/O', () => {
  const used = files
    .filter(({ name }) => layer(name) === 'oci')
    .flatMap(({ text }) => [...text.matchAll(/from '(node:[^']+)'/g)].map((match) => match[1]));
  assert.deepEqual([...new Set(used)], ['node:crypto']);
});

test('time, chance and environment come in from outside', () => {
  const ambient = files
    .filter(({ name }) => name !== 'main.ts' && name !== 'clock.ts')
    .filter(({ text }) =>
      /\bprocess\.(env|exit|cwd)\b|\bDate\.now\(\)|\bnew Date\(\)|\bMath\.random\b/.test(text),
    )
    .map(({ name }) => name);
  assert.deepEqual(ambient, []);
});

test('no source file outgrows its reader', () => {
  const long = files.filter(({ text }) => text.split('\n').length > FILE_BUDGET).map(({ name }) => name);
  assert.deepEqual(long, []);
});

test('no folder holds more files than one looks through at a glance', () => {
  const counts = Map.groupBy(files, ({ name }) => dirname(name));
  const full = [...counts].filter(([, { length }]) => length > FOLDER_BUDGET).map(([folder]) => folder);
  assert.deepEqual(full, []);
});

test('no folder imports itself in a circle', () => {
  const folders = imports
    .map(({ from, to }) => ({ from: roomOf(from), to: roomOf(to) }))
    .filter(({ from, to }) => from !== to);
  const targets = Map.groupBy(folders, ({ from }) => from);
  const done = new Set<string>();
  const walk = (folder: string, path: string[]): void => {
    assert.ok(!path.includes(folder), `circle: ${[...path, folder].join(' → ')}`);
    if (done.has(folder)) return;
    for (const { to } of targets.get(folder) ?? []) walk(to, [...path, folder]);
    done.add(folder);
  };
  for (const { from } of folders) walk(from, []);
});
