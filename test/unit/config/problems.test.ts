import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ConfigError } from '../../../src/config/errors.ts';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();

const LISTEN = 'must be a host and a port, such as 127.0.0.1:5000 or "[::1]:5000"';
const TIMEOUT = 'must be a duration from 1ms to 24d with its unit, such as 30s';
const DURATION = 'must be a duration with its unit, such as 500ms, 30s, 5m, 24h or 7d';
const SIZE =
  'must be a size in B, KiB, MiB, GiB or TiB, such as 50GiB, or a share of the file system from 1% to 100%, such as 80%';
const BANDWIDTH = 'must be none, or bytes a second from 1KiB, such as 50MiB';
const SHARE = 'must be a number above 0 and at most 1, such as 0.9';
const URL_RULE =
  'must be an http:// or https:// URL without user name, password, query or fragment, such as https://registry.corp.example';
const PROXY_RULE =
  'must be an http:// or https:// URL of a host and port, such as http://proxy.corp.example:3128; for a password write { url, password }';
const IMAGE_HOST =
  'must be a registry host in lower case with a dot or a port, such as registry.corp.example or registry:5000';
const HOST = 'must be a host in lower case with an optional port, such as registry.corp.example:5000';
const SECRET = 'must be { env: NAME } or { file: PATH }: say where the secret is, never write it here';
const VARIABLE =
  'must be the name of an environment variable: letters, digits and _, such as REGISTRY_PASSWORD';

/** A configuration with `line` as its line 3, indented by four spaces, in upstream docker.io. */
const upstream = (line: string) => `upstreams:\n  docker.io:\n    ${line}\n`;
const D = 'upstreams.docker.io';

suite('every problem is reported with its place', () => {
  for (const [text, ...problems] of [
    // server, operations
    ['server: { listen: 5000 }', `m.yaml:1:19: server.listen: ${LISTEN}, got 5000`],
    ['server: { listen: ":5000" }', `m.yaml:1:19: server.listen: ${LISTEN}, got ":5000"`],
    ['server: { listen: "a:65536" }', `m.yaml:1:19: server.listen: ${LISTEN}, got "a:65536"`],
    ['server: { listen: "::1:5000" }', `m.yaml:1:19: server.listen: ${LISTEN}, got "::1:5000"`],
    ['server: { listen: "[::x]:5000" }', `m.yaml:1:19: server.listen: ${LISTEN}, got "[::x]:5000"`],
    ['server:\n  listen:\n', `m.yaml:2:10: server.listen: ${LISTEN}, got nothing`],
    ['server: { drainTimeout: 30 }', `m.yaml:1:25: server.drainTimeout: ${TIMEOUT}, got 30`],
    ['server: { clientTimeout: 0s }', `m.yaml:1:26: server.clientTimeout: ${TIMEOUT}, got "0s"`],
    [
      'server: { revalidateFrom: [10.0.0.0/33] }',
      'm.yaml:1:28: server.revalidateFrom[0]: must be an IP address or a network, such as 10.0.0.0/8 or "fd00::/8", got "10.0.0.0/33"',
    ],
    [
      upstream('freshness: { repositories: [{ match: "org/ *" }] }'),
      `m.yaml:3:42: ${D}.freshness.repositories[0].match: must be a pattern of repository names in lower case, such as org/*, got "org/ *"`,
    ],
    [
      'server: { accelRedirect: blobs }',
      'm.yaml:1:26: server.accelRedirect: must be none, or a path that begins and ends with a slash, such as /blobs/, got "blobs"',
    ],
    ['server: { clientTimeout: 25d }', `m.yaml:1:26: server.clientTimeout: ${TIMEOUT}, got "25d"`],
    [
      'operations: { listen: [x] }',
      'm.yaml:1:23: operations.listen: must be a host and a port, such as 127.0.0.1:5001, or unix: and the path of a socket, got a list',
    ],
    ['operations: 127.0.0.1:1', 'm.yaml:1:13: operations: must be a map of settings, got "127.0.0.1:1"'],
    // cache
    ['cache: { directory: "" }', 'm.yaml:1:21: cache.directory: must be the path of a file or folder'],
    [
      'cache: { directory: ~/millpond }',
      'm.yaml:1:21: cache.directory: begins with ~, and only a shell replaces that: write the whole path',
    ],
    [
      'operations: { listen: "unix:~/m.sock" }',
      'm.yaml:1:23: operations.listen: must be a host and a port, such as 127.0.0.1:5001, or unix: and the path of a socket, got "unix:~/m.sock"; did you mean unix: and the whole path, without ~?',
    ],
    ['cache: { maxSize: 50G }', `m.yaml:1:19: cache.maxSize: ${SIZE}, got "50G"; did you mean 50GiB?`],
    ['cache: { maxSize: 50 gib }', `m.yaml:1:19: cache.maxSize: ${SIZE}, got "50 gib"; did you mean 50GiB?`],
    ['cache: { maxSize: 50GB }', `m.yaml:1:19: cache.maxSize: ${SIZE}, got "50GB"; did you mean 50GiB?`],
    ['cache: { maxSize: 0B }', `m.yaml:1:19: cache.maxSize: ${SIZE}, got "0B"`],
    ['cache: { maxSize: 0% }', `m.yaml:1:19: cache.maxSize: ${SIZE}, got "0%"`],
    ['cache: { maxSize: 101% }', `m.yaml:1:19: cache.maxSize: ${SIZE}, got "101%"`],
    [
      'cache: { keepFree: 1GB }',
      'm.yaml:1:20: cache.keepFree: must be a size in B, KiB, MiB, GiB or TiB, such as 1GiB, or 0B, got "1GB"; did you mean 1GiB?',
    ],
    [
      'cache: { pin: [alpine] }',
      'm.yaml:1:16: cache.pin[0]: must be a pattern of image names with their host, such as docker.io/library/alpine:*, got "alpine"',
    ],
    [
      'cache: { group: -1 }',
      'm.yaml:1:17: cache.group: must be none, or the name or number of a group, such as nginx or 101, got -1',
    ],
    [
      'cache: { group: "www data" }',
      'm.yaml:1:17: cache.group: must be none, or the name or number of a group, such as nginx or 101, got "www data"',
    ],
    [
      'cache: { scrubInterval: 0s }',
      'm.yaml:1:25: cache.scrubInterval: must be none, or a duration from 1ms to 24d with its unit, such as 7d, got "0s"',
    ],
    ['cache: { lowWatermark: 0 }', `m.yaml:1:24: cache.lowWatermark: ${SHARE}, got 0`],
    ['cache: { lowWatermark: 1.01 }', `m.yaml:1:24: cache.lowWatermark: ${SHARE}, got 1.01`],
    ['cache: { lowWatermark: 90% }', `m.yaml:1:24: cache.lowWatermark: ${SHARE}, got "90%"`],
    // policies
    [
      'policies: [{ name: a b, deny: { repositories: [docker.io/evil/*] } }]',
      'm.yaml:1:20: policies[0].name: must be a name of letters, digits, - and _, such as known-bad, got "a b"',
    ],
    [
      'policies: [{ name: a }]',
      'm.yaml:1:12: policies[0]: asks for nothing: add deny, minimumAge, signature or scan',
    ],
    [
      'policies: [{ name: a, deny: {} }]',
      'm.yaml:1:29: policies[0].deny: denies nothing: add digests or repositories',
    ],
    [
      'policies: [{ name: a, who: anna, deny: { repositories: [docker.io/evil/*] } }]',
      'm.yaml:1:28: policies[0].who: must be anonymous, *, user:NAME, token:NAME, oidc:NAME or certificate:CN=… (DNS:… URI:… EMAIL:…)',
    ],
    [
      'policies: [{ name: a, who: ["user:anna"], deny: { repositories: [docker.io/evil/*] } }]',
      'm.yaml:1:29: policies[0].who[0]: names nobody, because there is no access control: add access, or leave who out',
    ],
    [
      'policies: [{ name: a, signature: {} }]',
      'm.yaml:1:34: policies[0].signature: says not whose: add cosign, keyless or notation, or set mode: audit to see what is signed',
    ],
    [
      'policies: [{ name: a, signature: { cosign: { keys: [] } } }]',
      'm.yaml:1:52: policies[0].signature.cosign.keys: is empty, so nothing is let in',
    ],
    [
      'policies: [{ name: a, signature: { keyless: { subject: x, trustedRoot: y } } }]',
      'm.yaml:1:36: policies[0].signature.keyless.issuer: is missing: it must be the URL of the issuer, such as https://token.actions.githubusercontent.com',
    ],
    [
      'policies: [{ name: a, signature: { notation: { trustStore: [a], identities: [] } } }]',
      'm.yaml:1:77: policies[0].signature.notation.identities: is empty, so nothing is let in',
    ],
    [
      'policies: [{ name: a, scan: { failOn: critical } }]',
      'm.yaml:1:29: policies[0].scan: names no scanner: add trivy, trivyServer or adapter',
    ],
    [
      'policies: [{ name: a, scan: { trivy: trivy, adapter: "https://scanner", failOn: critical } }]',
      'm.yaml:1:54: policies[0].scan.adapter: is another scanner beside trivy: leave one of them out',
    ],
    [
      'policies: [{ name: a, scan: { trivy: trivy, failOn: severe } }]',
      'm.yaml:1:53: policies[0].scan.failOn: must be one of low, medium, high, critical, got "severe"',
    ],
    [
      'policies: [{ name: a, match: [], deny: { repositories: [docker.io/evil/*] } }]',
      'm.yaml:1:30: policies[0].match: matches nothing: leave it out to match everything',
    ],
    [
      'policies: [{ name: a, match: [quay.oi/*], deny: { repositories: [docker.io/evil/*] } }]',
      'm.yaml:1:31: policies[0].match[0]: the registry "quay.oi" is not configured: add it under upstreams, or correct the pattern',
    ],
    [
      'policies: [{ name: a, deny: { repositories: [evil/*] } }]',
      'm.yaml:1:46: policies[0].deny.repositories[0]: the registry "evil" is not configured: add it under upstreams, or correct the pattern',
    ],
    [
      'policies:\n  - { name: a, deny: { repositories: [docker.io/evil/*] } }\n  - { name: a, deny: { repositories: [docker.io/evil/*] } }',
      'm.yaml:3:13: policies[1].name: a is the name of another policy already',
    ],
    [
      'policies: [{ name: a, deny: { repositories: [docker.io/evil/*] }, except: [{ image: sha256:12, reason: x, until: 2027-12-31 }] }]',
      'm.yaml:1:85: policies[0].except[0].image: sha256:12 is not a digest: write all of it, in lower case',
    ],
    [
      'policies: [{ name: a, deny: { repositories: [docker.io/evil/*] }, except: [{ image: docker.io/*, reason: x, until: 2027-02-30 }] }]',
      'm.yaml:1:116: policies[0].except[0].until: must be a day such as 2027-12-31, got "2027-02-30"',
    ],
    // warm
    ['warm: [{ images: [a], every: 0s }]', `m.yaml:1:30: warm[0].every: ${TIMEOUT}, got "0s"`],
    [
      'warm: [{ images: [A], every: 6h }]',
      'm.yaml:1:19: warm[0].images[0]: must be an image name such as docker.io/library/alpine:3.20, got "A"',
    ],
    [
      'warm: [{ images: [a, b.test/a], every: 6h }]',
      'm.yaml:1:22: warm[0].images[1]: b.test is neither an upstream nor an alias of one: add it to upstreams',
    ],
    [
      'warm: [{ images: [a], every: 6h, platforms: [linux] }]',
      'm.yaml:1:46: warm[0].platforms[0]: must be a platform (os/architecture) such as linux/amd64, got "linux"',
    ],
    ['warm: [{ images: [a] }]', `m.yaml:1:8: warm[0].every: is missing: it ${TIMEOUT}`],
    // sealed, log
    ['sealed: "true"', 'm.yaml:1:9: sealed: must be true or false, got "true"'],
    ['log: { format: text }', 'm.yaml:1:16: log.format: must be one of auto, json, pretty, got "text"'],
    // upstreams
    [
      'upstreams: [docker.io]',
      'm.yaml:1:12: upstreams: must be a map of registry hosts, such as docker.io: {}, got a list',
    ],
    [
      'upstreams: {}',
      'm.yaml:1:1: upstreams: must contain docker.io, because it is the default upstream: add it, or set defaultUpstream',
    ],
    [
      'upstreams:\n',
      'm.yaml:1:1: upstreams: must contain docker.io, because it is the default upstream: add it, or set defaultUpstream',
    ],
    [
      'sealed: true\nupstreams: { ghcr.io: }',
      'm.yaml:2:1: upstreams: must contain docker.io, because it is the default upstream: add it, or set defaultUpstream',
    ],
    [
      'defaultUpstream: dcker.io',
      'm.yaml:1:18: defaultUpstream: must be an upstream or an alias of one, got "dcker.io"; did you mean docker.io?',
    ],
    ['upstreams:\n  docker.io: https://x', `m.yaml:2:14: ${D}: must be a map of settings, got "https://x"`],
    [
      'upstreams:\n  docker.io:\n  https://x: {}',
      `m.yaml:3:3: upstreams.https://x: ${IMAGE_HOST}, got "https://x"`,
    ],
    [
      'upstreams:\n  docker.io:\n  Ghcr.io: {}',
      `m.yaml:3:3: upstreams.Ghcr.io: ${IMAGE_HOST}, got "Ghcr.io"`,
    ],
    [
      'upstreams:\n  docker.io:\n  library: {}',
      `m.yaml:3:3: upstreams.library: ${IMAGE_HOST}, got "library"`,
    ],
    ['upstreams:\n  docker.io:\n  5000: {}', `m.yaml:3:3: upstreams.5000: ${IMAGE_HOST}, got "5000"`],
    [
      'upstreams:\n  docker.io:\n  a.b:70000: {}',
      `m.yaml:3:3: upstreams.a.b:70000: ${IMAGE_HOST}, got "a.b:70000"`,
    ],
    // names of two upstreams
    [
      'upstreams:\n  docker.io:\n  index.docker.io: {}',
      'm.yaml:3:3: upstreams.index.docker.io: index.docker.io already belongs to upstream docker.io: a name can select only one upstream',
    ],
    [
      'upstreams:\n  docker.io:\n  ghcr.io: { aliases: [g.corp, docker.io] }',
      'm.yaml:3:32: upstreams.ghcr.io.aliases[1]: docker.io already belongs to upstream docker.io: a name can select only one upstream',
    ],
    [
      'upstreams:\n  docker.io: { hosts: [m.corp] }\n  ghcr.io: { hosts: [m.corp] }',
      'm.yaml:3:22: upstreams.ghcr.io.hosts[0]: m.corp already belongs to upstream docker.io: a name can select only one upstream',
    ],
    [
      'upstreams:\n  docker.io: { aliases: [m.corp] }\n  ghcr.io: { hosts: [m.corp] }',
      'm.yaml:3:22: upstreams.ghcr.io.hosts[0]: m.corp already belongs to upstream docker.io: a name can select only one upstream',
    ],
    // settings of an upstream
    [upstream('url: registry-1.docker.io'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('url: ftp://x'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('url: https://bob:hunter2@x'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('url: https://:hunter2@x'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('url: https://hunter2@x'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('url: https://x/?token=hunter2'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('url: "https://x/#"'), `m.yaml:3:10: ${D}.url: ${URL_RULE}`],
    [upstream('fallbackUrls: ["https://x", y]'), `m.yaml:3:33: ${D}.fallbackUrls[1]: ${URL_RULE}`],
    [
      upstream('fallbackUrls: https://x'),
      `m.yaml:3:19: ${D}.fallbackUrls: must be a list, in [brackets] even if it has one item, got "https://x"`,
    ],
    [upstream('aliases: [hub]'), `m.yaml:3:15: ${D}.aliases[0]: ${IMAGE_HOST}, got "hub"`],
    [upstream('hosts: [-x.y]'), `m.yaml:3:13: ${D}.hosts[0]: ${HOST}, got "-x.y"`],
    [upstream('realmHosts: ["https://x"]'), `m.yaml:3:18: ${D}.realmHosts[0]: ${HOST}, got "https://x"`],
    [
      upstream('allowPrivateAddresses: 1'),
      `m.yaml:3:28: ${D}.allowPrivateAddresses: must be true or false, got 1`,
    ],
    [upstream('maxBandwidth: 50B'), `m.yaml:3:19: ${D}.maxBandwidth: ${BANDWIDTH}, got "50B"`],
    [
      'server: { maxUpstreamBandwidth: 50MB }',
      `m.yaml:1:33: server.maxUpstreamBandwidth: ${BANDWIDTH}, got "50MB"`,
    ],
    [
      upstream('maxConnections: 0'),
      `m.yaml:3:21: ${D}.maxConnections: must be a whole number, 1 or more, got 0`,
    ],
    [upstream('segments: 1.5'), `m.yaml:3:15: ${D}.segments: must be a whole number, 1 or more, got 1.5`],
    [upstream('connectTimeout: soon'), `m.yaml:3:21: ${D}.connectTimeout: ${TIMEOUT}, got "soon"`],
    [upstream('headersTimeout: 0s'), `m.yaml:3:21: ${D}.headersTimeout: ${TIMEOUT}, got "0s"`],
    [upstream('bodyTimeout: 5'), `m.yaml:3:18: ${D}.bodyTimeout: ${TIMEOUT}, got 5`],
    [upstream('ca: ""'), `m.yaml:3:9: ${D}.ca: must be the path of a file or folder`],
    [
      upstream('ca: "-----BEGIN\\nhunter2"'),
      `m.yaml:3:9: ${D}.ca: must be the path of a file, but is several lines: do not paste its content`,
    ],
    [
      upstream('clientCertificate: { cert: c }'),
      `m.yaml:3:5: ${D}.clientCertificate.key: is missing: it must be the path of a file or folder`,
    ],
    [
      upstream('clientCertificate: { cert: c, key: "a\\nhunter2" }'),
      `m.yaml:3:40: ${D}.clientCertificate.key: must be the path of a file, but is several lines: do not paste its content`,
    ],
    [upstream('proxy: proxy.corp:3128'), `m.yaml:3:12: ${D}.proxy: ${PROXY_RULE}`],
    [upstream('proxy: socks5://proxy.corp'), `m.yaml:3:12: ${D}.proxy: ${PROXY_RULE}`],
    [upstream('proxy: http://bob:hunter2@proxy.corp'), `m.yaml:3:12: ${D}.proxy: ${PROXY_RULE}`],
    [upstream('proxy: http://proxy.corp/hunter2'), `m.yaml:3:12: ${D}.proxy: ${PROXY_RULE}`],
    [
      upstream('proxy: 3128'),
      `m.yaml:3:12: ${D}.proxy: must be none, an http:// or https:// URL of a host and port, or { url, password }`,
    ],
    [
      upstream('proxy: { url: http://proxy.corp, password: hunter2 }'),
      `m.yaml:3:48: ${D}.proxy.password: ${SECRET}`,
    ],
    [
      upstream('proxy: { url: http://proxy.corp, user: bob, password: { env: P } }'),
      `m.yaml:3:38: ${D}.proxy.user: unknown key; possible here: url, password`,
    ],
    [
      upstream('rateLimit: { reserve: -1 }'),
      `m.yaml:3:27: ${D}.rateLimit.reserve: must be a whole number, 0 or more, got -1`,
    ],
    // freshness
    [upstream('freshness: { tagTtl: 5 }'), `m.yaml:3:26: ${D}.freshness.tagTtl: ${DURATION}, got 5`],
    [
      upstream('freshness: { staleIfError: forever }'),
      `m.yaml:3:32: ${D}.freshness.staleIfError: ${DURATION}, got "forever"`,
    ],
    [
      upstream('freshness: { negativeTtl: -1s }'),
      `m.yaml:3:31: ${D}.freshness.negativeTtl: ${DURATION}, got "-1s"`,
    ],
    [
      upstream('freshness: { onTagDeleted: drop }'),
      `m.yaml:3:32: ${D}.freshness.onTagDeleted: must be one of forget, keep, got "drop"`,
    ],
    [
      upstream("freshness: { immutableTags: [x, 'v('] }"),
      `m.yaml:3:37: ${D}.freshness.immutableTags[1]: must be a regular expression, got "v(": unterminated group`,
    ],
    [
      upstream('freshness: { immutableTags: [1] }'),
      `m.yaml:3:34: ${D}.freshness.immutableTags[0]: must be a regular expression, got 1`,
    ],
    // credentials
    [
      upstream('credentials: hunter2'),
      `m.yaml:3:18: ${D}.credentials: must be none or { username, password }, { identityToken }, { dockerConfig }, { helper }, { ecr } or { acr }`,
    ],
    [
      upstream('credentials: { username: bob, password: hunter2 }'),
      `m.yaml:3:45: ${D}.credentials.password: ${SECRET}`,
    ],
    [
      upstream('credentials: { username: bob, password: 12345 }'),
      `m.yaml:3:45: ${D}.credentials.password: ${SECRET}`,
    ],
    [
      upstream('credentials: { username: bob, password: {} }'),
      `m.yaml:3:45: ${D}.credentials.password: ${SECRET}`,
    ],
    [
      upstream('credentials: { username: bob, password: { env: A, file: b } }'),
      `m.yaml:3:45: ${D}.credentials.password: ${SECRET}`,
    ],
    [
      upstream('credentials: { username: bob, password: { env: hunter-2 } }'),
      `m.yaml:3:52: ${D}.credentials.password.env: ${VARIABLE}`,
    ],
    [
      upstream('credentials: { helper: ../evil }'),
      `m.yaml:3:28: ${D}.credentials.helper: must be the name of a credential helper without the prefix docker-credential-, such as ecr-login, got "../evil"`,
    ],
    [
      upstream('credentials: { identityToken: secret }'),
      `m.yaml:3:35: ${D}.credentials.identityToken: ${SECRET}`,
    ],
    [
      upstream('credentials: { ecr: { region: "eu west" } }'),
      `m.yaml:3:35: ${D}.credentials.ecr.region: must be an AWS region such as eu-west-1, got "eu west"`,
    ],
    [
      upstream('credentials: { helper: a, dockerConfig: b }'),
      `m.yaml:3:20: ${D}.credentials.helper: cannot be combined with the other keys here: keep one kind, remove the rest`,
    ],
    [
      upstream('credentials: { username: bob }'),
      `m.yaml:3:5: ${D}.credentials.password: is missing: it ${SECRET}`,
    ],
    [
      upstream('credentials: { username: "bob:x", password: { env: A } }'),
      `m.yaml:3:30: ${D}.credentials.username: must be a user name without colons or spaces`,
    ],
    [
      upstream('credentials: { username: 5, password: { env: A } }'),
      `m.yaml:3:30: ${D}.credentials.username: must be a user name, { env: NAME } or { file: PATH }`,
    ],
  ] as [string, ...string[]][]) {
    test(problems[0] ?? text, async () => {
      assert.deepEqual(await folder.problems(text), problems);
    });
  }

  test('a value that an alias repeats is reported where it is written', async () => {
    const text = 'upstreams:\n  docker.io: { freshness: &f { tagTtl: 5 } }\n  ghcr.io: { freshness: *f }\n';
    assert.deepEqual(await folder.problems(text), [
      `m.yaml:2:40: ${D}.freshness.tagTtl: ${DURATION}, got 5`,
      `m.yaml:2:40: upstreams.ghcr.io.freshness.tagTtl: ${DURATION}, got 5`,
    ]);
  });

  test('problems of one line are sorted from left to right', async () => {
    assert.deepEqual(await folder.problems('cache: { max_size: 1GiB, lowWatermark: 2 }'), [
      'm.yaml:1:10: cache.max_size: unknown key; did you mean maxSize?',
      `m.yaml:1:40: cache.lowWatermark: ${SHARE}, got 2`,
    ]);
  });

  test('all problems are reported at once, in the order of the file', async () => {
    const text = `server:
  listen: 5000
  drainTimout: 5s
cache: { maxSize: 50GB, lowWatermark: 1.5 }
defaultUpstream: dcker.io
upstreams:
  docker.io:
  ghcr.io:
    aliases: [docker.io]
    credentials: { username: bob, password: hunter2 }
    ca: nowhere.pem
  quay.io:
    credentials: { username: { env: NOBODY }, password: { file: nowhere } }
    segments: 0
`;
    assert.deepEqual(await folder.problems(text, {}), [
      `m.yaml:2:11: server.listen: ${LISTEN}, got 5000`,
      'm.yaml:3:3: server.drainTimout: unknown key; did you mean drainTimeout?',
      `m.yaml:4:19: cache.maxSize: ${SIZE}, got "50GB"; did you mean 50GiB?`,
      `m.yaml:4:39: cache.lowWatermark: ${SHARE}, got 1.5`,
      'm.yaml:5:18: defaultUpstream: must be an upstream or an alias of one, got "dcker.io"; did you mean docker.io?',
      'm.yaml:9:15: upstreams.ghcr.io.aliases[0]: docker.io already belongs to upstream docker.io: a name can select only one upstream',
      `m.yaml:10:45: upstreams.ghcr.io.credentials.password: ${SECRET}`,
      'm.yaml:11:9: upstreams.ghcr.io.ca: file cannot be read: no such file',
      'm.yaml:13:37: upstreams.quay.io.credentials.username.env: environment variable NOBODY is not set',
      `m.yaml:13:65: upstreams.quay.io.credentials.password.file: secret file ${folder.path}/nowhere cannot be read: no such file`,
      'm.yaml:14:15: upstreams.quay.io.segments: must be a whole number, 1 or more, got 0',
    ]);
  });

  test('programs can read the parts of a problem', async () => {
    const error = await folder.load('sealed: maybe').catch((reason: unknown) => reason);
    assert.ok(error instanceof ConfigError);
    assert.equal(error.code, 'invalid');
    assert.deepEqual(error.problems, [
      { file: 'm.yaml', line: 1, col: 9, path: 'sealed', message: 'must be true or false, got "maybe"' },
    ]);
  });
});

suite('an unknown key', () => {
  for (const [text, problem] of [
    ['cache: { maxsize: 1GiB }', 'm.yaml:1:10: cache.maxsize: unknown key; did you mean maxSize?'],
    ['cache:\n  max_size: 1GiB', 'm.yaml:2:3: cache.max_size: unknown key; did you mean maxSize?'],
    ['upstream: {}', 'm.yaml:1:1: upstream: unknown key; did you mean upstreams?'],
    // Counts two swapped letters as one mistake: more than one is not allowed in three letters.
    [upstream('rul: https://x'), `m.yaml:3:5: ${D}.rul: unknown key; did you mean url?`],
    [upstream('fallbackURLs: []'), `m.yaml:3:5: ${D}.fallbackURLs: unknown key; did you mean fallbackUrls?`],
    [
      upstream('freshness: { tagTLL: 5m }'),
      `m.yaml:3:18: ${D}.freshness.tagTLL: unknown key; did you mean tagTtl?`,
    ],
    [
      upstream('credentials: { username: u, password: { env: A }, pasword: hunter2 }'),
      `m.yaml:3:55: ${D}.credentials.pasword: unknown key; did you mean password?`,
    ],
    [
      upstream('credentials: { username: u, password: { env: A, fil: b } }'),
      `m.yaml:3:53: ${D}.credentials.password.fil: unknown key; did you mean file?`,
    ],
    [
      'warm: [{ imges: [a], images: [a], every: 6h }]',
      'm.yaml:1:10: warm[0].imges: unknown key; did you mean images?',
    ],
    [
      'operations: { password: hunter2 }',
      'm.yaml:1:15: operations.password: unknown key; possible here: listen, socketMode, tls, hosts',
    ],
    [
      '__proto__: {}',
      'm.yaml:1:1: __proto__: unknown key; possible here: server, operations, access, cache, fleet, defaultUpstream, sealed, watchConfig, upstreams, policies, policyWait, notify, retryRefused, warm, log',
    ],
  ] as const) {
    test(problem, async () => {
      assert.deepEqual(await folder.problems(text), [problem]);
    });
  }
});

suite('files and variables that the configuration names', () => {
  test('a path that begins with ~ is reported once, and ./~ is a name like any other', async () => {
    await folder.write('~', 'certificate');
    assert.deepEqual(await folder.problems(upstream('ca: ~/ca.pem'), {}), [
      `m.yaml:3:9: ${D}.ca: begins with ~, and only a shell replaces that: write the whole path`,
    ]);
    const { upstreams } = await folder.load(upstream('ca: ./~'), {});
    assert.equal(upstreams.get('docker.io')?.ca, `${folder.path}/~`);
  });

  const credentials = (password: string) => upstream(`credentials: { username: bob, password: ${password} }`);

  test('a variable must be set, and not be empty', async () => {
    const path = `m.yaml:3:52: ${D}.credentials.password.env`;
    assert.deepEqual(await folder.problems(credentials('{ env: TOKEN }'), {}), [
      `${path}: environment variable TOKEN is not set`,
    ]);
    assert.deepEqual(await folder.problems(credentials('{ env: TOKEN }'), { TOKEN: '' }), [
      `${path}: environment variable TOKEN is empty`,
    ]);
    await folder.load(credentials('{ env: TOKEN }'), { TOKEN: 'x' });
  });

  test('a secret file must be readable, and not be empty', async () => {
    const path = `m.yaml:3:53: ${D}.credentials.password.file`;
    const empty = await folder.write('empty', '\n');
    assert.deepEqual(await folder.problems(credentials('{ file: empty }'), {}), [
      `${path}: secret file ${empty} is empty`,
    ]);
    assert.deepEqual(await folder.problems(credentials('{ file: . }'), {}), [
      `${path}: secret file ${folder.path} cannot be read: it is a folder`,
    ]);
    await folder.write('token', 'x');
    await folder.load(credentials('{ file: token }'), {});
  });

  test('the password of a proxy must be set', async () => {
    const text = upstream('{ proxy: { url: http://bob@proxy.corp, password: { env: PROXY_PASSWORD } } }');
    assert.deepEqual(await folder.problems(text, {}), [
      `m.yaml:3:61: ${D}.proxy.password.env: environment variable PROXY_PASSWORD is not set`,
    ]);
  });

  test('certificate files must be readable', async () => {
    const text = upstream('{ ca: ., clientCertificate: { cert: nowhere, key: nowhere } }');
    assert.deepEqual(await folder.problems(text, {}), [
      `m.yaml:3:11: ${D}.ca: file cannot be read: it is a folder`,
      `m.yaml:3:41: ${D}.clientCertificate.cert: file cannot be read: no such file`,
      `m.yaml:3:55: ${D}.clientCertificate.key: file cannot be read: no such file`,
    ]);
  });

  test('files of denied digests must be readable', async () => {
    assert.deepEqual(await folder.problems('policies: [{ name: a, deny: { digests: [., nowhere] } }]', {}), [
      'm.yaml:1:41: policies[0].deny.digests[0]: file cannot be read: it is a folder',
      'm.yaml:1:44: policies[0].deny.digests[1]: file cannot be read: no such file',
    ]);
  });

  test('with an invalid name are not looked for, and the text that was pasted there is not shown', async () => {
    assert.deepEqual(await folder.problems(credentials('{ file: "hunter2\\nhunter2" }'), {}), [
      `m.yaml:3:53: ${D}.credentials.password.file: must be the path of a file, but is several lines: do not paste its content`,
    ]);
    assert.deepEqual(await folder.problems(credentials('{ env: "hunter 2" }'), {}), [
      `m.yaml:3:52: ${D}.credentials.password.env: ${VARIABLE}`,
    ]);
  });

  test('are not checked when no environment is given', async () => {
    await folder.load(credentials('{ file: nowhere }'));
  });
});
