import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { Repository } from '../../../src/oci/reference.ts';
import { Tokens } from '../../../src/upstream/auth/tokens.ts';
import type { Reply } from '../../../src/upstream/network/transport.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { startTransport } from '../../helpers/test-transport.ts';

const ENTRA = 'entra-token';
const REPOSITORY = 'org/app' as Repository;

/** An Azure registry with /oauth2/exchange and /oauth2/token, as its documentation says (Azure/acr, docs/AAD-OAuth.md). */
async function setUp(t: TestContext, exchangeStatus = 200) {
  const asked: { path: string; form: Record<string, string> }[] = [];
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const body = await text(request);
    const path = request.url ?? '';
    asked.push({ path, form: Object.fromEntries(new URLSearchParams(body)) });
    const reply =
      path === '/oauth2/exchange' ? { refresh_token: 'acr-refresh' } : { access_token: 'acr-access' };
    response.writeHead(path === '/oauth2/exchange' ? exchangeStatus : 200);
    response.end(JSON.stringify(reply));
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => server.close());
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const url = `http://${host}`;
  const transport = startTransport(t, { url, allowPrivateAddresses: true });
  const settings = {
    name: 'contoso.azurecr.io',
    url,
    realmHosts: [],
    credentials: async () => ({ entraToken: ENTRA }),
  };
  const tokens = new Tokens(settings, transport, { clock: new FakeClock(), onRefused: () => undefined });
  const challenge = `Bearer realm="${url}/oauth2/token",service="${host}",scope="repository:${REPOSITORY}:pull"`;
  const refusal = { url: new URL(url), headers: { 'www-authenticate': challenge } } as unknown as Reply;
  return { asked, host, answer: () => tokens.answer(CONTEXT, refusal, REPOSITORY, undefined) };
}

test('an Entra token is exchanged at the registry for a refresh token, and that for the token of the pull', async (t) => {
  const { asked, host, answer } = await setUp(t);
  assert.equal(await answer(), 'Bearer acr-access');
  assert.deepEqual(asked, [
    { path: '/oauth2/exchange', form: { grant_type: 'access_token', service: host, access_token: ENTRA } },
    {
      path: '/oauth2/token',
      form: {
        grant_type: 'refresh_token',
        refresh_token: 'acr-refresh',
        client_id: 'millpond',
        scope: `repository:${REPOSITORY}:pull`,
        service: host,
      },
    },
  ]);
});

test('an exchange that is refused is a refusal, and the Entra token goes nowhere else', async (t) => {
  const { asked, answer } = await setUp(t, 401);
  await assert.rejects(answer(), { code: 'denied' });
  assert.deepEqual(
    asked.map(({ path }) => path),
    ['/oauth2/exchange'],
  );
});
