import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { cleanUp } from '../helpers/cleanup.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const SECRET = 'correct-horse-battery';
const TAGS = '/v2/org/app/tags/list';
const SCOPE = 'repository:org/app:pull';
const MINUTE = 60_000;

type Auth = NonNullable<Parameters<typeof ScriptedUpstream.start>[1]>['auth'];

function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** A registry behind a token server, and a mirror with these credentials for it. */
async function setUp(
  t: TestContext,
  auth: NonNullable<Auth>,
  credentials: unknown,
  { name = 'ghcr.io', environment = {} }: { name?: string; environment?: Record<string, string> } = {},
) {
  const upstream = await ScriptedUpstream.start(t, { auth });
  upstream.addImage('org/app', '1');
  const mirror = await startMirror(t, {
    upstreams: { [name]: { url: upstream.url, credentials } },
    environment: { SECRET, ...environment },
  });
  const tokens = upstream.tokens ?? assert.fail('no token server');
  return { upstream, mirror, tokens };
}

/** A helper in its own folder. It records what it was asked. `answer` is a shell command. */
async function writeHelper(t: TestContext, name: string, answer: string) {
  const folder = await tempDir(t);
  const asked = join(folder, 'asked');
  const file = join(folder, `docker-credential-${name}`);
  await writeFile(file, `#!/bin/sh\necho "$1 $(cat)" >> ${asked}\n${answer}\n`);
  await chmod(file, 0o755);
  const runs = async () => (await readFile(asked, 'utf8').catch(() => '')).split('\n').filter(Boolean);
  return { environment: { PATH: `${folder}:${process.env['PATH'] ?? ''}` }, runs, file };
}

const answerOf = (username: string, secret: string) =>
  `echo '{"ServerURL":"x","Username":"${username}","Secret":"${secret}"}'`;

suite('an identity token', () => {
  const credentials = { identityToken: { env: 'SECRET' } };

  test('is changed by POST for an access token, and is in no URL and no header', async (t) => {
    const { upstream, mirror, tokens } = await setUp(t, { refreshToken: SECRET }, credentials);
    assert.equal((await mirror.get(TAGS)).status, 200);
    const form = {
      grant_type: 'refresh_token',
      refresh_token: SECRET,
      client_id: 'millpond',
      scope: SCOPE,
      service: 'scripted',
    };
    assert.deepEqual(tokens.requests, [
      { service: 'scripted', scope: SCOPE, authorization: undefined, form },
    ]);
    assert.equal(upstream.requests.at(-1)?.headers.authorization, 'Bearer token-1');
  });

  for (const postStatus of [400, 401, 404, 405]) {
    test(`goes by GET to a token server that answers a POST with ${postStatus}`, async (t) => {
      const auth = { postStatus, credentials: { username: '<token>', password: SECRET } };
      const { mirror, tokens } = await setUp(t, auth, credentials);
      assert.equal((await mirror.get(TAGS)).status, 200);
      assert.deepEqual(
        tokens.requests.map(({ form, authorization }) => [form !== undefined, authorization]),
        [
          [true, undefined],
          [false, basic('<token>', SECRET)],
        ],
      );
    });
  }

  test('goes only to the token server itself, and not where that redirects', async (t) => {
    const { mirror, tokens } = await setUp(t, { refreshToken: SECRET }, credentials);
    const elsewhere = await ScriptedUpstream.start(t);
    tokens.refusal = { status: 307, body: '', headers: { location: `${elsewhere.url}/token` } };
    assert.equal((await mirror.get(TAGS)).status, 502);
    assert.equal(tokens.requests.length, 1);
    assert.equal(elsewhere.requests.length, 0);
  });

  test('that is not taken is a refusal, after one POST and one GET', async (t) => {
    const auth = { refreshToken: 'another', credentials: { username: 'u', password: 'p' } };
    const { mirror, tokens } = await setUp(t, auth, credentials);
    const reply = await mirror.get(TAGS);
    assert.deepEqual([reply.status, reply.error], [403, 'DENIED']);
    assert.equal(tokens.requests.length, 2);
  });
});

suite('a Docker configuration', () => {
  const login = { credentials: { username: 'me', password: SECRET } };
  const auth = Buffer.from(`me:${SECRET}`).toString('base64');

  for (const [what, name, config] of [
    ['auth', 'ghcr.io', { auths: { 'ghcr.io': { auth } } }],
    ['auth under a URL', 'ghcr.io', { auths: { 'https://ghcr.io/v2/': { auth } } }],
    ['name and password', 'ghcr.io', { auths: { 'ghcr.io': { username: 'me', password: SECRET } } }],
    ['Docker Hub’s own key', 'docker.io', { auths: { 'https://index.docker.io/v1/': { auth } } }],
    ['an old dockercfg without auths', 'ghcr.io', { 'ghcr.io': { auth } }],
    ['among other registries', 'ghcr.io', { auths: { 'quay.io': { auth: 'eDp5' }, 'ghcr.io': { auth } } }],
  ] as const) {
    test(`gives ${what}`, async (t) => {
      const file = join(await tempDir(t), 'config.json');
      await writeFile(file, JSON.stringify(config));
      const { mirror, tokens } = await setUp(t, login, { dockerConfig: file }, { name });
      assert.equal((await mirror.get(TAGS)).status, 200);
      assert.equal(tokens.requests[0]?.authorization, basic('me', SECRET));
    });
  }

  test('that changes is read again', async (t) => {
    const file = join(await tempDir(t), 'config.json');
    await writeFile(file, '{"auths":{}}');
    const { mirror, tokens } = await setUp(t, login, { dockerConfig: file });
    assert.equal((await mirror.get(TAGS)).status, 403);
    assert.equal(tokens.requests[0]?.authorization, undefined, 'without an entry: anonymous');
    await writeFile(file, JSON.stringify({ auths: { 'ghcr.io': { auth } } }));
    assert.equal((await mirror.get(TAGS)).status, 200);
  });

  test('with an identity token or a registry token uses each as what it is', async (t) => {
    const file = join(await tempDir(t), 'config.json');
    await writeFile(file, JSON.stringify({ auths: { 'ghcr.io': { auth: '', identitytoken: SECRET } } }));
    const first = await setUp(t, { refreshToken: SECRET }, { dockerConfig: file });
    assert.equal((await first.mirror.get(TAGS)).status, 200);
    assert.equal(first.tokens.requests[0]?.form?.['refresh_token'], SECRET);

    await writeFile(file, JSON.stringify({ auths: { 'ghcr.io': { registrytoken: SECRET } } }));
    const second = await setUp(t, {}, { dockerConfig: file });
    second.upstream.script({ kind: 'tags' }, (reply, { headers }) => {
      if (headers.authorization !== `Bearer ${SECRET}`) Object.assign(reply, errorReply(401, 'UNAUTHORIZED'));
    });
    await second.mirror.get(TAGS);
    assert.equal(second.upstream.requests.at(-1)?.headers.authorization, `Bearer ${SECRET}`);
    assert.equal(second.tokens.requests.length, 0, 'no token server has a part in it');
  });

  test('asks the helper of the host, before the common one and before auths', async (t) => {
    const mine = await writeHelper(t, 'mine', answerOf('me', SECRET));
    const common = await writeHelper(t, 'common', answerOf('nobody', 'x'));
    const folder = await tempDir(t);
    await mkdir(folder, { recursive: true });
    const file = join(folder, 'config.json');
    const config = {
      auths: { 'ghcr.io': { auth: 'eDp5' } },
      credsStore: 'common',
      credHelpers: { 'ghcr.io': 'mine' },
    };
    await writeFile(file, JSON.stringify(config));
    const environment = { PATH: `${common.environment.PATH}:${mine.environment.PATH}` };
    const { mirror } = await setUp(t, login, { dockerConfig: file }, { environment });
    assert.equal((await mirror.get(TAGS)).status, 200);
    assert.deepEqual([await mine.runs(), await common.runs()], [['get ghcr.io'], []]);
  });

  test('that is not JSON is reported without quoting it', async (t) => {
    const file = join(await tempDir(t), 'config.json');
    await writeFile(file, `{"auths": ${SECRET}`);
    const { mirror } = await setUp(t, login, { dockerConfig: file });
    assert.deepEqual((await mirror.get(TAGS)).status, 502);
    const log = JSON.stringify(mirror.log);
    assert.ok(log.includes('the Docker configuration is not valid JSON') && !log.includes(SECRET));
  });
});

suite('a credential helper', () => {
  const login = { credentials: { username: 'me', password: SECRET } };
  const settings = { helper: 'mine' };

  test('is asked for the registry’s host, once for many pulls, and again after five minutes', async (t) => {
    const { environment, runs } = await writeHelper(t, 'mine', answerOf('me', SECRET));
    const { upstream, mirror } = await setUp(t, login, settings, { environment });
    for (let pull = 0; pull < 3; pull += 1) assert.equal((await mirror.get(TAGS)).status, 200);
    assert.deepEqual(await runs(), [`get ${new URL(upstream.url).host}`]);
    mirror.clock.advance(6 * MINUTE);
    await mirror.get(TAGS);
    assert.equal((await runs()).length, 2);
  });

  test('is asked for Docker Hub by the name that docker login gave it', async (t) => {
    const { environment, runs } = await writeHelper(t, 'mine', answerOf('me', SECRET));
    const { mirror } = await setUp(t, login, settings, { name: 'docker.io', environment });
    assert.equal((await mirror.get(TAGS)).status, 200);
    assert.deepEqual(await runs(), ['get https://index.docker.io/v1/']);
  });

  test('whose answer is refused is asked once more, and not with every pull', async (t) => {
    const { environment, runs, file } = await writeHelper(t, 'mine', answerOf('me', 'yesterday'));
    const { mirror } = await setUp(t, login, settings, { environment });
    for (let pull = 0; pull < 3; pull += 1) assert.equal((await mirror.get(TAGS)).status, 403);
    assert.equal((await runs()).length, 1, 'it was asked just now');
    const text = await readFile(file, 'utf8');
    await writeFile(file, text.replace('yesterday', SECRET));
    mirror.clock.advance(MINUTE);
    assert.equal((await mirror.get(TAGS)).status, 200);
    assert.equal((await runs()).length, 2);
  });

  test('that says <token> gave an identity token', async (t) => {
    const { environment } = await writeHelper(t, 'mine', answerOf('<token>', SECRET));
    const { mirror, tokens } = await setUp(t, { refreshToken: SECRET }, settings, { environment });
    assert.equal((await mirror.get(TAGS)).status, 200);
    assert.equal(tokens.requests[0]?.form?.['refresh_token'], SECRET);
  });

  test('that knows nothing of the host means anonymous', async (t) => {
    const { environment } = await writeHelper(
      t,
      'mine',
      'echo "credentials not found in native keychain"; exit 1',
    );
    const { mirror, tokens } = await setUp(t, {}, settings, { environment });
    assert.equal((await mirror.get(TAGS)).status, 200);
    assert.equal(tokens.requests[0]?.authorization, undefined);
  });

  for (const [what, answer, reason] of [
    ['fails', `echo ${SECRET}; echo ${SECRET} >&2; exit 3`, 'docker-credential-mine failed: exit code 3'],
    ['prints no JSON', `echo ${SECRET}`, 'docker-credential-mine did not print JSON'],
    [
      'prints too much',
      `yes ${SECRET} | head -c 3000000`,
      'docker-credential-mine failed: it printed too much',
    ],
    [
      'leaves the secret out',
      `echo '{"Username":"${SECRET}"}'`,
      'docker-credential-mine printed no Username and Secret',
    ],
  ] as const) {
    test(`that ${what} is an outage; the log says why, and nothing that it printed`, async (t) => {
      const { environment } = await writeHelper(t, 'mine', answer);
      const { mirror } = await setUp(t, login, settings, { environment });
      const reply = await mirror.get(TAGS);
      assert.deepEqual([reply.status, reply.error], [502, 'UNAVAILABLE']);
      const log = JSON.stringify(mirror.log);
      assert.ok(log.includes(reason), log);
      assert.ok(!log.includes(SECRET) && !reply.body.toString().includes(SECRET));
    });
  }

  test('that is not installed is named', async (t) => {
    const { mirror } = await setUp(
      t,
      login,
      { helper: 'nowhere' },
      { environment: { PATH: '/nonexistent' } },
    );
    assert.equal((await mirror.get(TAGS)).status, 502);
    assert.ok(JSON.stringify(mirror.log).includes('docker-credential-nowhere failed: it is not on the PATH'));
  });
});

test('Amazon ECR’s twelve-hour password comes from the AWS SDK, and is sent as it is', async (t) => {
  const asked: string[] = [];
  const ecr = createServer((request, response) => {
    asked.push(String(request.headers['x-amz-target']));
    const authorizationToken = Buffer.from(`AWS:${SECRET}`).toString('base64');
    const expiresAt = Date.now() / 1000 + 12 * 3600;
    response.writeHead(200, { 'content-type': 'application/x-amz-json-1.1' });
    response.end(JSON.stringify({ authorizationData: [{ authorizationToken, expiresAt }] }));
  });
  await new Promise<void>((resolve) => ecr.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => ecr.close());
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', '1');
  upstream.script({}, (reply, { headers }) => {
    if (headers.authorization === basic('AWS', SECRET)) return;
    const challenge = {
      'www-authenticate': 'Basic realm="https://1234.example/",service="ecr.amazonaws.com"',
    };
    Object.assign(reply, errorReply(401, 'UNAUTHORIZED', challenge));
  });
  const mirror = await startRealMirror(
    t,
    await tempDir(t),
    {
      upstreams: { 'docker.io': { url: upstream.url, credentials: { ecr: { region: 'eu-west-1' } } } },
    },
    {
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: 'example',
      AWS_ENDPOINT_URL_ECR: `http://127.0.0.1:${(ecr.address() as AddressInfo).port}`,
    },
  );
  for (let pull = 0; pull < 2; pull += 1) {
    assert.equal((await fetch(`http://127.0.0.1:${mirror.port}${TAGS}`)).status, 200);
  }
  assert.deepEqual(asked, ['AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken']);
  assert.ok(!mirror.process.lines.join('\n').includes(SECRET));
});
