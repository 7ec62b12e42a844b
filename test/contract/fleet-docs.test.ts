/** What docs/fleet.md and deploy/fleet tell users to write is right. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { parse, parseDocument, stringify } from 'yaml';
import { run } from '../helpers/real-processes.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const docs = await readFile(join(ROOT, 'docs/fleet.md'), 'utf8');

function blocks(language: string): string[] {
  return [...docs.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(
    ([, text = '']) => text,
  );
}

/** A block with what it leaves out: a bucket and a secret. */
function completed(text: string): Record<string, unknown> {
  const config = parse(text) as { fleet?: { objects?: object } };
  if (config.fleet === undefined) return config;
  const objects = { bucket: 'millpond', ...config.fleet.objects };
  return { ...config, fleet: { secret: { file: '/run/secrets/fleet' }, ...config.fleet, objects } };
}

test('each configuration in docs/fleet.md and deploy/fleet passes config check', async (t) => {
  const directory = await tempDir(t);
  const secret = join(directory, 'secret');
  await writeFile(secret, `${'a secret '.repeat(5)}\n`, { mode: 0o600 });
  const texts = [...blocks('yaml'), await readFile(join(ROOT, 'deploy/fleet/millpond.yaml'), 'utf8')];
  assert.ok(texts.length >= 3);
  for (const [n, text] of texts.entries()) {
    assert.deepEqual(parseDocument(text).errors, [], text);
    const config = { ...completed(text), cache: { directory: join(directory, 'data') } };
    const file = join(directory, `${n}.yaml`);
    // The files that it names are here instead.
    await writeFile(file, stringify(config).replaceAll(/\/run\/(?:secrets|fleet)\/[a-z-]+/g, secret));
    await run(process.execPath, ['src/main.ts', 'config', 'check', '--config', file], {
      ...{ FLEET_ACCESS_KEY_ID: 'x', FLEET_SECRET_ACCESS_KEY: 'x' },
      // The compose file sets it for each node.
      ...(n === texts.length - 1 ? { MILLPOND_FLEET_ADVERTISE: 'http://node-a:5002' } : {}),
    }).catch((error: unknown) => assert.fail(`${text}\n${String(error)}`));
  }
});

test('each policy and rule of the bucket in docs/fleet.md is JSON', () => {
  const texts = blocks('json');
  assert.ok(texts.length >= 2);
  for (const text of texts) assert.doesNotThrow(() => JSON.parse(text), text);
});
