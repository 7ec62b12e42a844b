/** What real clients keep of a login, and what they give away. */
import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { basic } from '../helpers/access-files.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import {
  type LoginClient,
  type MirrorAddress,
  preparePodmanLogin,
  startDockerLogin,
} from '../helpers/login-clients.ts';
import { OidcProvider } from '../helpers/oidc-provider.ts';
import { startDockerd } from '../helpers/real-clients.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MINUTE = 60_000;
const TEAM = 'docker.io/library/team';
const HUB_PASSWORD = 'the password at Docker Hub';
const skip = missingPrograms('docker-registry', 'dockerd', 'podman', 'busybox', 'skopeo');

async function registryWith(t: TestContext, directory: string, name: string): Promise<RealRegistry> {
  const registry = await RealRegistry.start(t);
  await pushImage(await makeImage(directory), registry, name);
  return registry;
}

const CLIENTS: Record<string, (t: TestContext, address: MirrorAddress) => Promise<LoginClient>> = {
  docker: startDockerLogin,
  podman: preparePodmanLogin,
};

for (const [name, prepare] of Object.entries(CLIENTS)) {
  test(`${name} logs in with a JWT of five minutes: after ten it still pulls, after 61 it is refused`, {
    skip,
  }, async (t) => {
    const directory = await tempDir(t);
    const registry = await registryWith(t, directory, 'library/team:1');
    const provider = await OidcProvider.start(t);
    const clock = new FakeClock();
    clock.advance(Date.now() - clock.now()); // the provider has no other
    const mirror = await startMirror(t, {
      ...{ clock, upstreams: { 'docker.io': registry.url } },
      access: {
        oidc: [{ name: 'ci', issuer: provider.issuer, audience: 'millpond' }],
        rules: [{ who: 'oidc:ci', claims: { client_id: 'ci' }, pull: TEAM }],
      },
    });
    const client = await prepare(t, { name: mirror.app.registryAddress });
    const jwt = await provider.jwt();
    // podman keeps what it was given, so it is given what lives as long as the session: as the documents say, by curl.
    const password = name === 'podman' ? await refreshToken(mirror.url, jwt) : jwt;
    await client.login({ user: 'oauth', password });
    await client.pull(TEAM);
    clock.advance(10 * MINUTE);
    await client.pull(TEAM);
    clock.advance(51 * MINUTE);
    await assert.rejects(client.pull(TEAM), /unauthorized|401|authentication required|invalid username/i);
  });
}

for (const noChallenge of [true, false]) {
  const network = noChallenge ? 'a network that is never challenged' : 'a network that is challenged';
  test(`dockerd that is logged in to Docker Hub pulls from ${network}, and the Hub password is kept nowhere`, {
    skip,
  }, async (t) => {
    const directory = await tempDir(t);
    const registry = await registryWith(t, directory, 'library/busybox:1');
    const mirror = await startRealMirror(t, directory, {
      upstreams: { 'docker.io': { url: registry.url } },
      log: { level: 'debug' },
      access: {
        rules: [{ who: 'anonymous', network: '127.0.0.0/8', pull: 'docker.io/library/*' }],
        ...(noChallenge ? { noChallenge: ['127.0.0.0/8'] } : {}),
      },
    });
    const config = await tempDir(t);
    const auth = Buffer.from(`hub-user:${HUB_PASSWORD}`).toString('base64');
    await writeFile(
      join(config, 'config.json'),
      JSON.stringify({ auths: { 'https://index.docker.io/v1/': { auth } } }),
    );
    const client = await startDockerd(t, mirror.port, { DOCKER_CONFIG: config });
    await client.pull();
    const asked = mirror.process.lines.filter((line) => line.includes('"path":"/token"')).length;
    assert.equal(asked > 0, !noChallenge, 'it is asked to log in only where it is challenged');
    const metrics = await (await fetch(`http://127.0.0.1:${mirror.operationsPort}/metrics`)).text();
    await mirror.stop();
    const told = [...mirror.process.lines, metrics, ...(await contents(join(directory, 'data')))].join('\n');
    for (const secret of [HUB_PASSWORD, auth]) assert.ok(!told.includes(secret));
  });
}

async function refreshToken(url: string, jwt: string): Promise<string> {
  const reply = await fetch(`${url}/token?offline_token=true`, {
    headers: { authorization: basic('oauth', jwt) },
  });
  return ((await reply.json()) as { refresh_token: string }).refresh_token;
}

/** Of every file. */
async function contents(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(files.map((file) => readFile(file, 'latin1')));
}
