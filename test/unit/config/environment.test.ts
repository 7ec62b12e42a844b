import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { variablesOf } from '../../../src/config/environment/variables.ts';
import { type LoadOptions, loadWithSources } from '../../../src/config/load.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();
await folder.write('certificate.pem', '');

async function load(text: string, environment: LoadOptions['environment'] = {}) {
  await folder.write('m.yaml', text);
  const { config, sources } = await loadWithSources({ file: 'm.yaml', cwd: folder.path, environment });
  return { config, sources };
}

const variables = variablesOf(configSchema);
const settable = variables.filter(({ kind }) => ['text', 'number', 'flag'].includes(kind));

suite('the variable of a key', () => {
  for (const [name, key] of [
    ['MILLPOND_CACHE_MAX_SIZE', 'cache.maxSize'],
    ['MILLPOND_SERVER_LISTEN', 'server.listen'],
    ['MILLPOND_SERVER_TLS_CLIENT_CA', 'server.tls.clientCa'],
    ['MILLPOND_ACCESS_SIGNING_KEY_FILE', 'access.signingKey.file'],
    ['MILLPOND_CACHE_GROUP', 'cache.group'],
    ['MILLPOND_DEFAULT_UPSTREAM', 'defaultUpstream'],
    ['MILLPOND_LOG_ACCESS', 'log.access'],
  ] as const) {
    test(`of ${key} is ${name}`, () => {
      assert.equal(settable.find((variable) => variable.name === name)?.path.join('.'), key);
    });
  }

  test('belongs to no other key', () => {
    const names = variables.map(({ name }) => name);
    assert.deepEqual(names.toSorted(), [...new Set(names)].toSorted());
  });

  test('is there for every single value of a fixed section', () => {
    const without = variables.filter(({ kind }) => kind === 'list' || kind === 'map');
    assert.deepEqual(
      without.map(({ path }) => path.join('.')),
      [
        ...['server.trustedProxies', 'server.revalidateFrom', 'operations.hosts'],
        ...[
          'access.oidc',
          'access.rules',
          'access.noChallenge',
          'cache.pin',
          'fleet.objects.redirectFor',
          'upstreams',
          'policies',
          'warm',
        ],
      ],
    );
  });
});

suite('a variable', () => {
  test('comes before the file, and the file before the default', async () => {
    const text = 'cache: { maxSize: 10GiB, keepFree: 2GiB }\nsealed: false\n';
    const { config } = await load(text, {
      MILLPOND_CACHE_MAX_SIZE: '200GiB',
      MILLPOND_SEALED: 'true',
      MILLPOND_CACHE_LOW_WATERMARK: '0.5',
      MILLPOND_CACHE_GROUP: '101',
      MILLPOND_LOG_LEVEL: 'debug',
      MILLPOND_SERVER_LISTEN: '[::1]:5000',
    });
    const { maxSize, keepFree, lowWatermark, group, imported } = config.cache;
    assert.deepEqual(
      [maxSize, keepFree, lowWatermark, group, imported],
      [200 * 2 ** 30, 2 ** 31, 0.5, 101, 'keep'],
    );
    assert.deepEqual([config.sealed, config.log.level], [true, 'debug']);
    assert.deepEqual(config.server.listen, { host: '::1', port: 5000 });
  });

  test('needs no file', async () => {
    const { config } = await loadWithSources({
      cwd: folder.path,
      environment: { MILLPOND_CACHE_DIRECTORY: 'elsewhere' },
    });
    assert.equal(config.cache.directory, `${folder.path}/elsewhere`);
  });

  test('that is empty is as good as none, whatever its name', async () => {
    const { config } = await load('sealed: true', { MILLPOND_SEALED: '', MILLPOND_NONSENSE: '' });
    assert.equal(config.sealed, true);
  });

  test('changes only its own key where two sections are one by an alias', async () => {
    const text =
      'server: { tls: &tls { certificate: certificate.pem, key: certificate.pem } }\noperations: { tls: *tls }\n';
    await folder.write('other.pem', '');
    const { config } = await load(text, { MILLPOND_SERVER_TLS_KEY: 'other.pem' });
    assert.equal(config.server.tls?.key, `${folder.path}/other.pem`);
    assert.equal(config.operations.tls?.key, `${folder.path}/certificate.pem`);
  });

  test('that the command line reads, or that Kubernetes makes of a Service called millpond, is no mistake', async () => {
    const { sources } = await load('', {
      ...{ MILLPOND_CONFIG: 'm.yaml', MILLPOND_TOKEN: 'mpt_x', MILLPOND_SERVER: 'http://127.0.0.1:5001' },
      MILLPOND_SERVICE_HOST: '10.0.0.7',
      MILLPOND_SERVICE_PORT: '5000',
      MILLPOND_SERVICE_PORT_REGISTRY: '5000',
      MILLPOND_PORT: 'tcp://10.0.0.7:5000',
      MILLPOND_PORT_5000_TCP: 'tcp://10.0.0.7:5000',
      MILLPOND_PORT_5000_TCP_PROTO: 'tcp',
      MILLPOND_PORT_5000_TCP_PORT: '5000',
      MILLPOND_PORT_5000_TCP_ADDR: '10.0.0.7',
      MILLPOND_SERVER_SERVICE_HOST: '10.0.0.8',
      MILLPOND_SERVER_PORT: 'tcp://10.0.0.8:5000',
    });
    assert.deepEqual(sources.variables, []);
  });
});

suite('a mistake in the environment names the variable', () => {
  for (const [environment, message, text] of [
    [{ MILLPOND_SEALED: 'yes' }, 'MILLPOND_SEALED: must be true or false, got "yes"'],
    [
      { MILLPOND_CACHE_LOW_WATERMARK: '90%' },
      'MILLPOND_CACHE_LOW_WATERMARK: must be a number above 0 and at most 1, such as 0.9, got "90%"',
    ],
    [
      { MILLPOND_LOG_LEVEL: 'loud' },
      'MILLPOND_LOG_LEVEL: must be one of trace, debug, info, warn, error, fatal, silent, got "loud"',
    ],
    [
      { MILLPOND_DEFAULT_UPSTREAM: 'gchr.io' },
      'MILLPOND_DEFAULT_UPSTREAM: must be an upstream or an alias of one, got "gchr.io"; did you mean ghcr.io?',
    ],
    [
      { MILLPOND_SERVER_TLS_KEY: 'nowhere.pem', MILLPOND_SERVER_TLS_CERTIFICATE: 'certificate.pem' },
      'MILLPOND_SERVER_TLS_KEY: file cannot be read: no such file',
    ],
    [
      { MILLPOND_SERVER_TLS_KEY: 'certificate.pem' },
      'MILLPOND_SERVER_TLS_CERTIFICATE: is missing: it must be the path of a file or folder',
    ],
    [
      { MILLPOND_OPERATIONS_LISTEN: '127.0.0.1:5000' },
      'MILLPOND_OPERATIONS_LISTEN: cannot be opened beside server.listen, 127.0.0.1:5000: give one of the two another port',
    ],
    [
      { MILLPOND_CACHE_MAXSIZE: '1GiB' },
      'MILLPOND_CACHE_MAXSIZE: means no key; did you mean MILLPOND_CACHE_MAX_SIZE?',
    ],
    [
      { MILLPOND_CAHCE_MAX_SIZE: '1GiB' },
      'MILLPOND_CAHCE_MAX_SIZE: means no key; did you mean MILLPOND_CACHE_MAX_SIZE?',
    ],
    [
      { MILLPOND_VERBOSE: '1' },
      'MILLPOND_VERBOSE: means no key: a variable is MILLPOND_ and the path of a key, such as MILLPOND_CACHE_MAX_SIZE for cache.maxSize',
    ],
    [{ MILLPOND_CACHE: 'x' }, 'MILLPOND_CACHE: means no key: cache is a section, name a key in it'],
    [
      { MILLPOND_CACHE_PIN: 'docker.io/*' },
      'MILLPOND_CACHE_PIN: cache.pin is a list, and has no variable: set it in the configuration file',
    ],
    [
      { MILLPOND_UPSTREAMS_DOCKER_IO_URL: 'https://a.example' },
      'MILLPOND_UPSTREAMS_DOCKER_IO_URL: what is in upstreams has no variable: set it in the configuration file',
    ],
    [
      { MILLPOND_PORT: '5000' },
      'MILLPOND_PORT: means no key: a variable is MILLPOND_ and the path of a key, such as MILLPOND_CACHE_MAX_SIZE for cache.maxSize',
    ],
    // A mistake of the file stays one of the file, where the variable cannot even be put.
    [{ MILLPOND_CACHE_MAX_SIZE: '1GiB' }, 'm.yaml:1:8: cache: must be a map of settings, got 5', 'cache: 5'],
  ] as const) {
    test(message, async () => {
      const expected = message.startsWith('MILLPOND_') ? `environment: ${message}` : message;
      assert.deepEqual(await folder.problems(text ?? '', environment), [expected]);
    });
  }

  test('beside the mistakes of the file, and before them', async () => {
    assert.deepEqual(await folder.problems('lgo: {}\n', { MILLPOND_SEALED: 'no', MILLPOND_X: 'y' }), [
      'environment: MILLPOND_X: means no key: a variable is MILLPOND_ and the path of a key, such as MILLPOND_CACHE_MAX_SIZE for cache.maxSize',
      'environment: MILLPOND_SEALED: must be true or false, got "no"',
      'm.yaml:1:1: lgo: unknown key; did you mean log?',
    ]);
  });
});

test('every value says where it comes from', async () => {
  const { sources } = await load(
    'cache:\n  maxSize: 1GiB\n  pin: [a.example/*]\nupstreams:\n  docker.io:\n',
    {
      MILLPOND_CACHE_MAX_SIZE: '2GiB',
      MILLPOND_ACCESS_SIGNING_KEY_FILE: 'certificate.pem',
    },
  );
  const origins = [
    ['cache', 'maxSize'],
    ['cache', 'pin', 0],
    ['cache', 'keepFree'],
    ['upstreams', 'docker.io', 'url'],
    ['sealed'],
    ['access', 'signingKey'],
  ].map((path) => sources.originOf(path));
  assert.deepEqual(origins, [
    'MILLPOND_CACHE_MAX_SIZE',
    'm.yaml:3',
    'default',
    'default',
    'default',
    'MILLPOND_ACCESS_SIGNING_KEY_FILE',
  ]);
});
