import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { stringify } from 'yaml';
import { loadConfig } from '../../../src/config/load.ts';
import { printConfig, printConfigWithOrigins } from '../../../src/config/print.ts';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();

test('prints the effective configuration in the documented order, in units for people', async () => {
  await folder.write('m.yaml', 'log: { level: warn }\nupstreams: { docker.io: { ca: ca.pem } }\n');
  assert.equal(
    printConfig(await loadConfig({ file: 'm.yaml', cwd: folder.path })),
    `server:
  listen: 127.0.0.1:5000
  trustedProxies: []
  forwardedHeader: x-forwarded-for
  drainTimeout: 30s
  clientTimeout: 1m
  maxUpstreamBandwidth: none
  revalidateFrom: []
  accelRedirect: none
operations:
  listen: 127.0.0.1:5001
  socketMode: '0600'
  hosts: []
cache:
  directory: ${folder.path}/millpond-data
  group: none
  maxSize: 50GiB
  lowWatermark: 0.9
  keepFree: 1GiB
  pin: []
  imported: keep
  scrubInterval: none
defaultUpstream: docker.io
sealed: false
watchConfig: true
upstreams:
  docker.io:
    url: https://registry-1.docker.io
    aliases:
      - index.docker.io
      - registry-1.docker.io
    hosts: []
    realmHosts: []
    fallbackUrls: []
    credentials: none
    ca: ${folder.path}/ca.pem
    allowPrivateAddresses: false
    maxConnections: 64
    segments: 4
    maxBandwidth: none
    connectTimeout: 10s
    headersTimeout: 30s
    bodyTimeout: 30s
    freshness:
      tagTtl: 5m
      immutableTags:
        - ^v?\\d+\\.\\d+\\.\\d+$
      staleWhileRevalidate: 0s
      staleIfError: 7d
      onTagDeleted: forget
      negativeTtl: 30s
      repositories: []
    rateLimit:
      reserve: 0
policies: []
policyWait: 20s
retryRefused: 30s
warm: []
log:
  level: warn
  format: auto
  access: all
`,
  );
});

test('prints neither a secret nor its place', async () => {
  const text = `upstreams:
  docker.io: { credentials: { username: bob, password: { env: HUB_TOKEN } } }
  ghcr.io: { credentials: { username: { file: /run/who }, password: { file: /run/token } } }
  quay.io: { proxy: { url: http://bob@proxy.corp:3128, password: { file: /run/proxy } } }
  azure.corp: { credentials: { identityToken: { env: AZURE_TOKEN } } }
`;
  const printed = printConfig(await folder.load(text, undefined));
  assert.match(printed, /username: bob\n {6}password: '\[redacted\]'\n/);
  assert.match(printed, /username: '\[redacted\]'\n {6}password: '\[redacted\]'\n/);
  assert.match(printed, /url: http:\/\/bob@proxy\.corp:3128\n {6}password: '\[redacted\]'\n/);
  assert.match(printed, /identityToken: '\[redacted\]'\n/);
  assert.doesNotMatch(printed, /_TOKEN|\/run\//);
});

test('the output loads as the same configuration', async () => {
  const ms = fc.integer({ min: 1, max: 2 ** 31 - 1 }).map((amount) => `${amount}ms`);
  const host = fc.constantFrom('127.0.0.1', 'localhost', '[::1]', '[fe80::1]', '0.0.0.0');
  // Even ports for one listener and odd ones for the other, as the defaults are: two on one address are a mistake.
  const listen = (first: number) =>
    fc.tuple(host, fc.integer({ min: 0, max: 32_767 })).map(([name, half]) => `${name}:${first + 2 * half}`);
  // Has words that YAML reads as another type unless they are quoted, and characters that regular expressions escape.
  const tagPattern = fc.constantFrom(
    '^v?\\d+$',
    'null',
    '1.0',
    'a/b',
    '# x',
    "it's",
    'true',
    '',
    '\n',
    '[:]',
    '~',
  );
  const upstream = fc.record(
    {
      url: fc.constantFrom('https://a.example/', 'http://[::1]:5000/base/', 'https://b.example:8443'),
      hosts: fc.uniqueArray(fc.constantFrom('one', 'two.example', '10.0.0.1', '[::1]:5000')),
      realmHosts: fc.uniqueArray(fc.constantFrom('auth.example', 'auth.example:444')),
      fallbackUrls: fc.array(fc.constantFrom('https://c.example', 'http://d.example:1/x')),
      ca: fc.constantFrom('ca.pem', '/etc/#ca', 'null'),
      clientCertificate: fc.constant({ cert: 'c: d', key: './~' }),
      proxy: fc.constantFrom('none', 'http://proxy.corp:3128/', 'https://corp%5Cbob@[fd00::1]'),
      allowPrivateAddresses: fc.boolean(),
      maxConnections: fc.integer({ min: 1 }),
      maxBandwidth: fc.constantFrom('none', '1KiB', '50MiB', '1536B'),
      segments: fc.integer({ min: 1 }),
      connectTimeout: ms,
      headersTimeout: ms,
      bodyTimeout: ms,
      freshness: fc.record(
        {
          tagTtl: ms,
          immutableTags: fc.array(tagPattern),
          staleIfError: ms,
          onTagDeleted: fc.constantFrom('forget', 'keep'),
          negativeTtl: ms,
        },
        { requiredKeys: [] },
      ),
      rateLimit: fc.record({ reserve: fc.nat() }, { requiredKeys: [] }),
    },
    { requiredKeys: [] },
  );
  const configuration = fc.record(
    {
      server: fc.record({ listen: listen(0), drainTimeout: ms, clientTimeout: ms }, { requiredKeys: [] }),
      operations: fc.record({ listen: listen(1) }),
      cache: fc.record(
        {
          directory: fc.constantFrom('data', '/var/lib/mill pond', './~', '- x', '"q"'),
          group: fc.constantFrom('none', 'www-data', 0, 101, '33'),
          maxSize: fc.oneof(
            fc.integer({ min: 1 }).map((bytes) => `${bytes}B`),
            fc.integer({ min: 1, max: 100 }).map((percent) => `${percent}%`),
          ),
          keepFree: fc.nat().map((bytes) => `${bytes}B`),
          pin: fc.array(fc.constantFrom('docker.io/library/alpine:*', '*/*:latest')),
          scrubInterval: fc.constantFrom('none', '7d', '36h'),
          lowWatermark: fc.double({ min: 0, minExcluded: true, max: 1, noNaN: true }),
        },
        { requiredKeys: [] },
      ),
      defaultUpstream: fc.constantFrom('docker.io', 'registry:5000', '[::1]:5000'),
      sealed: fc.boolean(),
      upstreams: fc.record({
        'docker.io': fc.constant({}),
        'registry:5000': upstream,
        '[::1]:5000': fc.constant({}),
      }),
      log: fc.record({
        level: fc.constantFrom('trace', 'silent'),
        format: fc.constantFrom('auto', 'json', 'pretty'),
      }),
    },
    { requiredKeys: ['upstreams'] },
  );
  await fc.assert(
    fc.asyncProperty(configuration, async (written) => {
      // Skips configurations in which one host selects two upstreams.
      fc.pre(!(written.upstreams['registry:5000'].hosts ?? []).includes('[::1]:5000'));
      const config = await folder.load(stringify(written));
      assert.deepEqual(await folder.load(printConfig(config)), config);
      assert.deepEqual(await folder.load(printConfigWithOrigins(config, String)), config);
    }),
  );
});

test('the output of the defaults loads as the defaults', async () => {
  const defaults = await loadConfig({ cwd: folder.path });
  assert.deepEqual(await folder.load(printConfig(defaults)), defaults);
});
