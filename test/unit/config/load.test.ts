import assert from 'node:assert/strict';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { ConfigError } from '../../../src/config/errors.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();

suite('a valid configuration', () => {
  test('without a file has the defaults, in milliseconds and bytes', async () => {
    const config = await loadConfig({ cwd: '/srv' });
    assert.deepEqual(config.server, {
      listen: { host: '127.0.0.1', port: 5000 },
      trustedProxies: [],
      forwardedHeader: 'x-forwarded-for',
      drainTimeout: 30_000,
      clientTimeout: 60_000,
      maxUpstreamBandwidth: null,
      revalidateFrom: [],
      accelRedirect: null,
    });
    assert.deepEqual(config.operations.listen, { host: '127.0.0.1', port: 5001 });
    assert.deepEqual(config.cache, {
      directory: '/srv/millpond-data',
      group: null,
      maxSize: 50 * 2 ** 30,
      lowWatermark: 0.9,
      keepFree: 2 ** 30,
      pin: [],
      imported: 'keep',
      scrubInterval: null,
    });
    assert.equal(config.defaultUpstream, 'docker.io');
    assert.equal(config.sealed, false);
    assert.deepEqual(config.log, { level: 'info', format: 'auto', access: 'all' });
    assert.deepEqual([...config.upstreams.keys()], ['docker.io', 'ghcr.io', 'quay.io']);
    assert.deepEqual(config.upstreams.get('docker.io'), {
      url: 'https://registry-1.docker.io',
      aliases: ['index.docker.io', 'registry-1.docker.io'],
      hosts: [],
      realmHosts: [],
      fallbackUrls: [],
      credentials: 'none',
      allowPrivateAddresses: false,
      maxConnections: 64,
      segments: 4,
      maxBandwidth: null,
      connectTimeout: 10_000,
      headersTimeout: 30_000,
      bodyTimeout: 30_000,
      freshness: {
        tagTtl: 300_000,
        immutableTags: [/^v?\d+\.\d+\.\d+$/],
        staleWhileRevalidate: 0,
        staleIfError: 604_800_000,
        onTagDeleted: 'forget',
        negativeTtl: 30_000,
        repositories: [],
      },
      rateLimit: { reserve: 0 },
    });
  });

  for (const [name, text] of [
    ['an empty file', ''],
    ['a file of comments', '\n# nothing yet\n'],
    ['sections left empty', 'server:\noperations:\ncache:\nlog:\n'],
    ['a byte order mark', '\uFEFFsealed: false\n'],
    ['line ends of Windows', 'sealed: false\r\nlog:\r\n  level: info\r\n'],
  ] as const) {
    test(`${name} means the defaults`, async () => {
      assert.deepEqual(await folder.load(text), await loadConfig({ cwd: folder.path }));
    });
  }

  test('an upstreams map replaces the default one', async () => {
    const { upstreams } = await folder.load('upstreams: { docker.io: {} }');
    assert.deepEqual([...upstreams.keys()], ['docker.io']);
  });

  for (const entry of ['', '{}', '{ freshness: }']) {
    test(`an upstream written as ${JSON.stringify(entry)} has the settings of its preset`, async () => {
      const { upstreams } = await folder.load(`upstreams:\n  docker.io:\n  nvcr.io: ${entry}\n`);
      assert.equal(upstreams.get('docker.io')?.url, 'https://registry-1.docker.io');
      assert.equal(upstreams.get('nvcr.io')?.url, 'https://nvcr.io');
      assert.deepEqual(upstreams.get('nvcr.io')?.realmHosts, ['authn.nvidia.com']);
      assert.equal(upstreams.get('nvcr.io')?.freshness.tagTtl, 300_000);
    });
  }

  test('naming a preset is enough to use it', async () => {
    const presets = [
      'docker.io',
      'ghcr.io',
      'quay.io',
      'registry.k8s.io',
      'gcr.io',
      'mcr.microsoft.com',
      'public.ecr.aws',
      'registry.gitlab.com',
      'nvcr.io',
    ];
    const { upstreams } = await folder.load(`upstreams:\n${presets.map((host) => `  ${host}:\n`).join('')}`);
    assert.deepEqual([...upstreams.keys()], presets);
  });

  test('a setting of the file replaces that of the preset, key by key', async () => {
    const { upstreams } = await folder.load('upstreams: { docker.io: { aliases: [hub.corp] } }');
    assert.deepEqual(upstreams.get('docker.io')?.aliases, ['hub.corp']);
    assert.equal(upstreams.get('docker.io')?.url, 'https://registry-1.docker.io');
  });

  test('the url of a host without a preset is https:// and the host', async () => {
    const { upstreams } = await folder.load('upstreams: { docker.io: , "registry.corp:5000": }');
    assert.equal(upstreams.get('registry.corp:5000')?.url, 'https://registry.corp:5000');
  });

  test('a url may have a path, and the slash at its end is removed', async () => {
    const { upstreams } = await folder.load(
      'upstreams: { docker.io: { url: "http://Proxy.corp:80/api/docker/hub/", fallbackUrls: ["https://b/"] } }',
    );
    assert.equal(upstreams.get('docker.io')?.url, 'http://proxy.corp/api/docker/hub');
    assert.deepEqual(upstreams.get('docker.io')?.fallbackUrls, ['https://b']);
  });

  for (const [text, listen] of [
    ['0.0.0.0:0', { host: '0.0.0.0', port: 0 }],
    ['localhost:65535', { host: 'localhost', port: 65_535 }],
    ['"[::1]:5000"', { host: '::1', port: 5000 }],
  ] as const) {
    test(`can listen on ${text}`, async () => {
      assert.deepEqual((await folder.load(`server: { listen: ${text} }`)).server.listen, listen);
    });
  }

  test('the default upstream may be given by an alias', async () => {
    assert.equal((await folder.load('defaultUpstream: index.docker.io')).defaultUpstream, 'index.docker.io');
  });

  test('an upstream may use one name as host, alias and virtual host', async () => {
    const { upstreams } = await folder.load(
      'upstreams: { docker.io: { aliases: [hub.corp], hosts: [hub.corp, docker.io] } }',
    );
    assert.deepEqual(upstreams.get('docker.io')?.hosts, ['hub.corp', 'docker.io']);
  });

  test('the configuration holds references to credentials, never their values', async () => {
    const text = 'upstreams: { docker.io: { credentials: { username: { env: U }, password: { file: p } } } }';
    await folder.write('p', 'swordfish');
    const { upstreams } = await folder.load(text, { U: 'captain' });
    assert.deepEqual(upstreams.get('docker.io')?.credentials, {
      username: { env: 'U' },
      password: { file: join(folder.path, 'p') },
    });
  });

  test('relative paths start from the working directory, not from the folder of the file', async () => {
    await folder.write(
      'etc/m.yaml',
      'cache: { directory: data }\nupstreams:\n  docker.io: { ca: ca.pem, clientCertificate: { cert: c, key: /k } }\n',
    );
    const config = await loadConfig({ file: 'etc/m.yaml', cwd: folder.path });
    assert.equal(config.cache.directory, join(folder.path, 'data'));
    assert.equal(config.upstreams.get('docker.io')?.ca, join(folder.path, 'ca.pem'));
    assert.deepEqual(config.upstreams.get('docker.io')?.clientCertificate, {
      cert: join(folder.path, 'c'),
      key: '/k',
    });
  });

  test('upstreams can share settings with a YAML anchor', async () => {
    const { upstreams } = await folder.load(
      'upstreams:\n  docker.io: { freshness: &f { tagTtl: 1h } }\n  ghcr.io: { freshness: *f }\n',
    );
    assert.equal(upstreams.get('ghcr.io')?.freshness.tagTtl, 3_600_000);
  });
});

// Nests ten lines of nine aliases each: resolved, the last line would have 3 500 million items.
const ALIAS_BOMB = Array.from({ length: 10 }, (_, index) => {
  const item = index === 0 ? 'x' : `*a${index - 1}`;
  return `key${index}: &a${index} [${Array.from({ length: 9 }, () => item).join(', ')}]\n`;
}).join('');

suite('a file that is not a configuration', () => {
  for (const [name, text, problems] of [
    ['a list', '- 1\n', ['m.yaml:1:1: must be a map of settings, got a list']],
    ['a word', 'hello\n', ['m.yaml:1:1: must be a map of settings, got "hello"']],
    [
      'several documents',
      'sealed: true\n---\nsealed: false\n',
      ['m.yaml:2:1: must be one YAML document, got several: remove this ---'],
    ],
    [
      'a tab as indentation',
      'server:\n\tlisten: x\n',
      ['m.yaml:2:1: invalid YAML: Tabs are not allowed as indentation'],
    ],
    ['an unknown tag', 'log: !secret hunter2\n', ['m.yaml:1:6: invalid YAML: Unresolved tag']],
    [
      'an alias of nothing',
      'log:\n  level: *hunter2\n',
      ['m.yaml:2:10: there is no anchor (&name) for this alias before it'],
    ],
    [
      'nested aliases that expand to gigabytes',
      ALIAS_BOMB,
      ['m.yaml:1:1: nested aliases expand to too much data: write it out in full'],
    ],
  ] as const) {
    test(`says where it finds ${name}`, async () => {
      assert.deepEqual(await folder.problems(text), problems);
    });
  }

  test('says where a key is repeated, and still checks the rest', async () => {
    assert.deepEqual(await folder.problems('sealed: true\nlog: { level: loud }\nsealed: false\n'), [
      'm.yaml:2:15: log.level: must be one of trace, debug, info, warn, error, fatal, silent, got "loud"',
      'm.yaml:3:1: duplicate key: it is already in this map, remove one of the two',
    ]);
  });

  test('checks the last value of a repeated key', async () => {
    assert.deepEqual(await folder.problems('sealed: true\nsealed: maybe\n'), [
      'm.yaml:2:1: duplicate key: it is already in this map, remove one of the two',
      'm.yaml:2:9: sealed: must be true or false, got "maybe"',
    ]);
  });

  test('reports brackets that are never closed once', async () => {
    assert.deepEqual(await folder.problems('log: [[[[\n'), [
      'm.yaml:2:1: invalid YAML: Flow sequence in block collection must be sufficiently indented and end with a ]',
    ]);
  });

  test('never quotes text that is not valid YAML, because it may be a secret', async () => {
    for (const value of [
      '"hunter2\\q"',
      '[hunter2',
      '@hunter2',
      '*hunter2',
      '!hunter2 x',
      '"hunter2',
      '|hunter2',
    ]) {
      const text = `upstreams:\n  docker.io:\n    credentials:\n      username: u\n      password: ${value}\n`;
      const problems = await folder.problems(text);
      assert.ok(problems.length > 0 && !problems.join().includes('hunter2'), problems.join('\n'));
    }
  });

  test('says that a file is missing, or is a folder', async () => {
    const message = async (file: string) =>
      loadConfig({ file, cwd: folder.path }).catch((error: unknown) => {
        assert.ok(error instanceof ConfigError);
        return `${error.code} ${error.message}`;
      });
    assert.equal(
      await message('nowhere.yaml'),
      'unreadable nowhere.yaml:1:1: configuration file cannot be read: no such file',
    );
    assert.equal(await message('.'), 'unreadable .:1:1: configuration file cannot be read: it is a folder');
  });
});
