/** Every way of naming an image leads to the same decision, with curl and with containerd. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { writeHtpasswd } from '../helpers/access-files.ts';
import { missingEngines } from '../helpers/engines.ts';
import { containerd2, daemonDir, startContainerdProcess } from '../helpers/real-clients.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const PASSWORD = 'a password';
const VIRTUAL_HOST = 'hub.mirror.test';

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('library/team', '1', { layers: [5000] });
  const directory = await tempDir(t);
  const mirror = await startRealMirror(t, directory, {
    upstreams: { 'docker.io': { url: upstream.url, hosts: [VIRTUAL_HOST] } },
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: PASSWORD, bert: PASSWORD }) },
      rules: [
        { who: 'user:anna', pull: 'docker.io/library/*' },
        { who: 'user:bert', pull: 'docker.io/elsewhere/*' },
      ],
    },
  });
  return { upstream, mirror };
}

/** Path and Host header of a manifest, in each way of the README, and by an alias and without `library/`. */
const WAYS: Record<string, [path: string, host?: string]> = {
  bare: ['/v2/library/team/manifests/1'],
  'without library/': ['/v2/team/manifests/1'],
  'ns query': ['/v2/library/team/manifests/1?ns=docker.io'],
  'first path segment': ['/v2/docker.io/library/team/manifests/1'],
  'an alias': ['/v2/index.docker.io/library/team/manifests/1'],
  'path before /v2': ['/docker.io/v2/library/team/manifests/1'],
  'both at once': ['/v2/docker.io/library/team/manifests/1?ns=docker.io'],
  'Host header': ['/v2/library/team/manifests/1', VIRTUAL_HOST],
};

test('curl: each way gives the image to one who may, 403 to one who may not, and 401 to nobody', {
  skip: missingPrograms('curl'),
}, async (t) => {
  const { upstream, mirror } = await setUp(t);
  for (const [user, status] of [
    [undefined, '401'],
    ['bert', '403'],
    ['anna', '200'],
  ] as const) {
    for (const [way, [path, host]] of Object.entries(WAYS)) {
      const login = user === undefined ? [] : ['--user', `${user}:${PASSWORD}`];
      const named = host === undefined ? [] : ['--header', `Host: ${host}`];
      const quiet = ['--silent', '--output', '/dev/null', '--write-out', '%{http_code}'];
      const seen = await run('curl', [
        ...quiet,
        ...login,
        ...named,
        `http://127.0.0.1:${mirror.port}${path}`,
      ]);
      assert.equal(seen, status, `${way} by ${user ?? 'nobody'}`);
    }
    if (user !== 'anna') assert.equal(upstream.totalConnections, 0, 'a refusal asks nobody');
  }
});

/** The `[host."…"]` of hosts.toml by which containerd names the image in each way that it has. */
const HOSTS: Record<
  string,
  { host: (port: number) => string; overridePath?: true; image?: (port: number) => string }
> = {
  'ns query': { host: (port) => `http://127.0.0.1:${port}` },
  'path before /v2': { host: (port) => `http://127.0.0.1:${port}/docker.io/v2`, overridePath: true },
  'first path segment, with ns': {
    host: (port) => `http://127.0.0.1:${port}/v2/docker.io`,
    overridePath: true,
  },
  'Host of the mirror in the name': {
    host: (port) => `http://127.0.0.1:${port}`,
    image: (port) => `127.0.0.1:${port}/docker.io/library/team:1`,
  },
};

for (const [way, { host, overridePath, image }] of Object.entries(HOSTS)) {
  test(`containerd 2: ${way}: a user who may pulls, and one who may not is refused`, {
    skip: missingEngines('containerd'),
  }, async (t) => {
    const { mirror } = await setUp(t);
    const programs = containerd2();
    const directory = await daemonDir(t);
    const { socket } = await startContainerdProcess(t, directory, programs);
    const reference = image?.(mirror.port) ?? 'docker.io/library/team:1';
    const folder = join(
      directory,
      'certs.d',
      (reference.split('/')[0] ?? '').replace(':', '_').concat(image === undefined ? '' : '_'),
    );
    await mkdir(folder, { recursive: true });
    const address = host(mirror.port);
    const lines = [`server = "${address}"`, `[host."${address}"]`, '  capabilities = ["pull", "resolve"]'];
    if (overridePath === true) lines.push('  override_path = true');
    await writeFile(join(folder, 'hosts.toml'), lines.join('\n'));
    const fetchAs = (user: string) =>
      run(programs.ctr, [
        ...['-a', socket, 'content', 'fetch', '--hosts-dir', join(directory, 'certs.d')],
        ...['--user', `${user}:${PASSWORD}`, reference],
      ]);
    await assert.rejects(fetchAs('bert'), /403|no rule of this mirror|denied/i);
    await fetchAs('anna');
  });
}
