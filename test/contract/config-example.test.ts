import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { suite, test } from 'node:test';
import { parse } from 'yaml';
import * as z from 'zod';
import { loadConfig } from '../../src/config/load.ts';
import { configSchema } from '../../src/config/schema.ts';
import { ConfigFolder } from '../helpers/config-folder.ts';

const EXAMPLE_ONLY = 'registry.corp.example';

interface KeySchema {
  description?: string;
  properties?: Record<string, KeySchema>;
  additionalProperties?: KeySchema | false;
  anyOf?: KeySchema[];
}

/** Every key of the configuration as a path; the host of an upstream is that of the example. */
function keyPaths(schema: KeySchema, above: readonly string[] = []): { path: string[]; schema: KeySchema }[] {
  const inner = [
    ...Object.entries(schema.properties ?? {}),
    ...(schema.additionalProperties ? [[EXAMPLE_ONLY, schema.additionalProperties] as const] : []),
  ];
  return [
    ...inner.flatMap(([key, value]) => {
      const path = [...above, key];
      return [...(key === EXAMPLE_ONLY ? [] : [{ path, schema: value }]), ...keyPaths(value, path)];
    }),
    ...(schema.anyOf ?? []).flatMap((branch) => keyPaths(branch, above)),
  ];
}

function at(data: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, key) => Object(value)[key], data);
}

const schemaKeys = keyPaths(z.toJSONSchema(configSchema, { io: 'input' }) as KeySchema);

const folder = await ConfigFolder.create();
const example = await readFile(new URL('../../config.example.yaml', import.meta.url), 'utf8');
// Follows the convention of the file: "# " begins a comment, "#key" is a setting that is switched off.
const uncommented = example.replace(/^( *)#(?=\S)/gm, '$1');
const defaults = await loadConfig({ cwd: folder.path });

suite('config.example.yaml', () => {
  test('loads as the defaults', async () => {
    assert.deepEqual(await folder.load(example, {}), defaults);
  });

  test('contains every default', () => {
    const written: unknown = parse(example);
    // A section without a default, such as access, is switched off in the file.
    const missing = schemaKeys.filter(
      ({ path }) => at(defaults, path) !== undefined && at(written, path) === undefined,
    );
    assert.deepEqual(missing, []);
  });

  test('with every setting switched on differs from the defaults only by its own upstream, TLS, access, notify and fleet', async () => {
    const { upstreams, access, server, operations, notify, fleet, ...rest } = await folder.load(uncommented);
    assert.ok(
      notify !== undefined &&
        fleet !== undefined &&
        access !== undefined &&
        server.tls !== undefined &&
        operations.tls !== undefined,
    );
    const { tls: _tls, externalUrl: _url, ...ownServer } = server;
    const { tls: _operationsTls, ...ownOperations } = operations;
    const withoutOwn = new Map([...upstreams].filter(([host]) => host !== EXAMPLE_ONLY));
    const own = { server: ownServer, operations: ownOperations, upstreams: withoutOwn };
    assert.deepEqual({ ...rest, ...own }, defaults);
    assert.equal(upstreams.size, withoutOwn.size + 1);
  });

  test('shows the default of every key of an upstream that has one', async () => {
    const shown = (await folder.load(uncommented)).upstreams.get(EXAMPLE_ONLY);
    const bare = (await folder.load(`upstreams: { docker.io: , ${EXAMPLE_ONLY}: }`)).upstreams.get(
      EXAMPLE_ONLY,
    );
    assert.ok(shown !== undefined && bare !== undefined);
    const { credentials, ca, clientCertificate, proxy } = shown;
    assert.deepEqual(shown, { ...bare, credentials, ca, clientCertificate, proxy });
    assert.equal(bare.credentials, 'none');
    assert.match(example, /The default is `credentials: none`/);
  });

  test('shows every key, in the order of the schema', () => {
    const written: unknown = parse(uncommented);
    // Skips the keys of secrets: each place has { env } or { file }, and both occur in the file.
    const isSecretKey = ({ path }: { path: string[] }) => ['env', 'file'].includes(path.at(-1) ?? '');
    // Looks for the other kinds of credentials in the comment before them.
    const isOtherKind = ({ path }: { path: string[] }) =>
      path[2] === 'credentials' && example.includes(`{ ${path.at(-1)}: `);
    const missing = schemaKeys
      .filter((key) => !isSecretKey(key) && !isOtherKind(key) && at(written, key.path) === undefined)
      .map(({ path }) => path.join('.'));
    assert.deepEqual(missing, []);
    assert.match(uncommented, /\{ env: \w+ \}/);
    assert.match(uncommented, /\{ file: \S+ \}/);
    assert.deepEqual(Object.keys(Object(written)), Object.keys(configSchema.shape));
    const upstreamKeys = schemaKeys.flatMap(({ path }) =>
      path.length === 3 && path[1] === EXAMPLE_ONLY ? path.slice(2) : [],
    );
    assert.deepEqual(Object.keys(Object(at(written, ['upstreams', EXAMPLE_ONLY]))), upstreamKeys);
  });

  test('has a comment on every key with a value', () => {
    const bare = example
      .split('\n')
      .filter((line) => /^ *#?[a-z]\w*: +\S/i.test(line) && !/ # \S/.test(line))
      .map((line) => line.trim());
    assert.deepEqual(bare, [
      '#username: { env: REGISTRY_USER }',
      '#password: { file: /run/secrets/registry-password }',
    ]);
  });
});

test('the schema describes every key', () => {
  const silent = schemaKeys.filter(({ schema }) => schema.description === undefined);
  assert.deepEqual(
    silent.map(({ path }) => path.join('.')),
    [],
  );
});
