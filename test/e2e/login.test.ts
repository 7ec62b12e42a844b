/** Real clients log in to a mirror over TLS by every kind of identity, pull, and are refused. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { createRobotToken, writeHtpasswd } from '../helpers/access-files.ts';
import type { Certificate } from '../helpers/certificates.ts';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { missingEngines } from '../helpers/engines.ts';
import { LOGIN_CLIENTS, type Login, type MirrorAddress, refusalOf } from '../helpers/login-clients.ts';
import { OidcProvider } from '../helpers/oidc-provider.ts';
import type { RealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { tempDir } from '../helpers/temp-dir.ts';
import { startTlsMirror } from '../helpers/tls-mirror.ts';

const PASSWORD = 'correct horse battery';
const TEAM = 'docker.io/library/team';
/** Only for the holder of a certificate. */
const CERTIFIED = 'docker.io/library/certified';

const skip =
  missingPrograms(
    'docker-registry',
    'dockerd',
    'containerd',
    'ctr',
    'podman',
    'skopeo',
    'busybox',
    'openssl',
  ) || missingEngines('crane', 'oras', 'containerd');

interface SetUp {
  mirror: RealMirror;
  address: MirrorAddress;
  logins: Record<string, Login>;
  certificate: Certificate;
}

async function setUp(t: TestContext): Promise<SetUp> {
  const directory = await tempDir(t);
  const registry = await RealRegistry.start(t);
  const image = await makeImage(directory);
  for (const name of ['team', 'certified']) await pushImage(image, registry, `library/${name}:1`);
  const provider = await OidcProvider.start(t);
  const robot = await createRobotToken(directory, 'ci-team', systemClock);
  const clients = await TestAuthority.root(t, 'clients');
  const config = {
    upstreams: { 'docker.io': { url: registry.url } },
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: PASSWORD }) },
      tokens: robot.path,
      oidc: [{ name: 'ci', issuer: provider.issuer, audience: 'millpond' }],
      rules: [
        { who: ['user:anna', 'token:ci-team'], pull: TEAM },
        { who: 'oidc:ci', claims: { client_id: 'ci' }, pull: TEAM },
        { who: 'certificate:DNS:build-1.corp.example', pull: CERTIFIED },
      ],
    },
  };
  const { mirror, address } = await startTlsMirror(t, directory, config, { clientCa: clients.cert });
  return {
    mirror,
    address,
    logins: {
      htpasswd: { user: 'anna', password: PASSWORD },
      'robot token': { user: 'robot', password: robot.secret },
      JWT: { user: 'oauth', password: await provider.jwt() },
    },
    certificate: await clients.issue(t, {
      subject: '/CN=build-1',
      extensions: ['subjectAltName = DNS:build-1.corp.example', 'extendedKeyUsage = clientAuth'],
    }),
  };
}

for (const [name, prepare] of Object.entries(LOGIN_CLIENTS)) {
  test(`${name} logs in by htpasswd, robot token, JWT and certificate, and is refused with wrong ones`, {
    skip,
  }, async (t) => {
    const { mirror, address, logins, certificate } = await setUp(t);
    const client = await prepare(t, address);
    const told = (text: string, what: string) => {
      // Our message, or the status and our address.
      const isShown =
        /log in|is wrong|not known here|no rule of this mirror/.test(text) ||
        (/40[13]|unauthorized|denied|invalid username\/password/i.test(text) && text.includes(address.name));
      assert.ok(isShown, `${what}: ${text}`);
    };
    told(await refusalOf(() => client.pull(TEAM)), 'without a login');
    for (const [kind, login] of Object.entries(logins)) {
      await t.test(kind, async () => {
        await client.login(login);
        await client.pull(TEAM);
        told(await refusalOf(() => client.pull(CERTIFIED)), 'what no rule allows');
        await client.logout();
        const wrong = { ...login, password: `${login.password.slice(0, -4)}oops` };
        told(
          await refusalOf(async () => {
            await client.login(wrong);
            await client.pull(TEAM);
          }),
          `wrong ${kind}`,
        );
        await client.logout().catch(() => undefined); // the login failed
      });
    }
    if (client.show !== undefined) {
      await client.show(certificate);
      await client.pull(CERTIFIED);
      told(await refusalOf(() => client.pull(TEAM)), 'a certificate that may not');
    }
    const log = mirror.process.lines.join('\n');
    for (const { password } of Object.values(logins))
      assert.ok(!log.includes(password), 'no secret in the log');
  });
}
