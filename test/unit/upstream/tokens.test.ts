import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { parseRepository } from '../../../src/oci/reference.ts';
import type { CredentialProvider } from '../../../src/upstream/auth/credentials.ts';
import { Tokens } from '../../../src/upstream/auth/tokens.ts';
import type { Reply } from '../../../src/upstream/network/transport.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { startTransport } from '../../helpers/test-transport.ts';
import { TokenServer, type TokenServerOptions } from '../../helpers/token-server.ts';

const SECOND = 1000;
const REPOSITORY = parseRepository('org/app') ?? assert.fail();
const REGISTRY = 'http://127.0.0.1:5000';

async function setUp(
  t: TestContext,
  options: Partial<TokenServerOptions> = {},
  credentials: CredentialProvider = async () => undefined,
) {
  const server = new TokenServer({ service: 'test', ...options });
  await server.start();
  cleanUp(t, () => server.close());
  const clock = new FakeClock();
  const transport = startTransport(t, { url: REGISTRY });
  const settings = { name: 'quay.io', url: REGISTRY, realmHosts: [], credentials };
  const tokens = new Tokens(settings, transport, { clock, onRefused: () => undefined });
  /** Answers a challenge of the registry, after a request with `rejected`. */
  const answer = (rejected?: string, challenge = `Bearer realm="${server.realm}"`) => {
    const reply = { url: new URL(REGISTRY), headers: { 'www-authenticate': challenge } };
    return tokens.answer(CONTEXT, reply as unknown as Reply, REPOSITORY, rejected);
  };
  const known = () => tokens.known(CONTEXT, REPOSITORY);
  return { server, clock, tokens, answer, known };
}

suite('a token is kept until five seconds before it expires', () => {
  for (const [expires, lifetime] of [
    [0, 60],
    [300, 300],
    [1e12, 3600],
  ] as const) {
    test(`with expires_in ${expires}, after ${lifetime} s`, async (t) => {
      const { clock, answer, known } = await setUp(t, { answer: { expires_in: expires } });
      assert.equal(await answer(), 'Bearer token-1');
      clock.advance(lifetime * SECOND - 5001);
      assert.equal(await known(), 'Bearer token-1');
      clock.advance(1);
      assert.equal(await known(), 'Bearer token-2');
    });
  }
});

test('requests at the same time share one token', async (t) => {
  const { server, answer } = await setUp(t);
  const answers = await Promise.all(Array.from({ length: 10 }, () => answer()));
  assert.deepEqual([...new Set(answers)], ['Bearer token-1']);
  assert.equal(server.requests.length, 1);
});

test('a token that the registry rejects is renewed once, for all whose request it failed', async (t) => {
  const { server, answer } = await setUp(t);
  const first = await answer();
  assert.deepEqual(await Promise.all([answer(first), answer(first)]), Array(2).fill('Bearer token-2'));
  assert.equal(await answer(first), 'Bearer token-2', 'also for one that comes later');
  assert.equal(server.requests.length, 2);
});

suite('a token server', () => {
  for (const status of [404, 410]) {
    test(`that answers ${status} is missing, and the content is not`, async (t) => {
      const { server, answer } = await setUp(t);
      server.refusal = { status, body: '' };
      await assert.rejects(answer(), { code: 'invalid-response', status });
    });
  }

  for (const token of ['a b', 'a\r\nX-Evil: 1', '']) {
    test(`that sends the token ${JSON.stringify(token)} is refused`, async (t) => {
      const { server, answer } = await setUp(t);
      server.refusal = { status: 200, body: JSON.stringify({ token }) };
      await assert.rejects(answer(), { code: 'invalid-response', message: /sent no usable token/ });
    });
  }

  test('on a foreign host is not asked', async (t) => {
    const { server, answer } = await setUp(t);
    const realm = server.realm.replace('127.0.0.1', 'localhost');
    await assert.rejects(answer(undefined, `Bearer realm="${realm}"`), {
      code: 'invalid-response',
      message: /localhost:\d+ is on a foreign host; if you trust it, add it to realmHosts/,
    });
    assert.deepEqual(server.requests, []);
  });

  test('without OAuth2 is asked again with a GET', async (t) => {
    const credentials = { username: '<token>', password: 'refresh' };
    const provider = async () => ({ identityToken: 'refresh' });
    const { server, answer } = await setUp(t, { postStatus: 404, credentials }, provider);
    assert.equal(await answer(), 'Bearer token-1');
    assert.deepEqual(
      server.requests.map(({ form }) => form !== undefined),
      [true, false],
    );
  });
});

suite('credentials', () => {
  const accepted = { username: 'me', password: 'new' };

  test('that are refused are read again, and tried again if they have changed', async (t) => {
    const provider: CredentialProvider = async ({ refused } = { refused: false }) =>
      refused ? accepted : { username: 'me', password: 'old' };
    const { server, answer } = await setUp(t, { credentials: accepted }, provider);
    assert.equal(await answer(), 'Bearer token-1');
    assert.equal(server.requests.length, 2);
  });

  test('that are refused are tried once if they have not', async (t) => {
    const provider = async () => ({ username: 'me', password: 'old' });
    const { server, answer } = await setUp(t, { credentials: accepted }, provider);
    await assert.rejects(answer(), { code: 'denied' });
    assert.equal(server.requests.length, 1);
  });

  test('that change get a token of their own', async (t) => {
    let password = 'one';
    const provider = async () => ({ username: 'me', password });
    const { answer, known } = await setUp(t, {}, provider);
    assert.equal(await answer(), 'Bearer token-1');
    password = 'two';
    assert.equal(await known(), 'Bearer token-2');
    password = 'one';
    assert.equal(await known(), 'Bearer token-1');
  });

  test('answer a Basic challenge once, and are not sent again when they are refused', async (t) => {
    const { answer } = await setUp(t, {}, async () => accepted);
    const basic = `Basic ${Buffer.from('me:new').toString('base64')}`;
    assert.equal(await answer(undefined, 'Basic realm="x"'), basic);
    assert.equal(await answer(basic, 'Basic realm="x"'), undefined);
  });
});

test('what a registry demands is remembered for the last 10 000 repositories', async (t) => {
  const { tokens } = await setUp(t, {}, async () => ({ username: 'me', password: 'secret' }));
  const reply = { url: new URL(REGISTRY), headers: { 'www-authenticate': 'Basic realm="x"' } };
  const repositories = Array.from(
    { length: 10_001 },
    (_, at) => parseRepository(`org/${at}`) ?? assert.fail(),
  );
  for (const repository of repositories)
    await tokens.answer(CONTEXT, reply as unknown as Reply, repository, undefined);
  const known = await Promise.all(repositories.map((repository) => tokens.known(CONTEXT, repository)));
  assert.deepEqual(
    known.flatMap((authorization, at) => (authorization === undefined ? [at] : [])),
    [0],
  );
});
