import assert from 'node:assert/strict';
import { test } from 'node:test';
import { acrCredentials, ecrCredentials } from '../../../src/upstream/auth/cloud-credentials.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const HOST = '1234.dkr.ecr.eu-west-2.amazonaws.com';
const HOUR = 3_600_000;

/** A stand-in for the SDK, because the real one would take half a day to show when credentials expire. */
function setUp() {
  const clock = new FakeClock();
  const regions: (string | undefined)[] = [];
  class ECRClient {
    readonly #region: string | undefined;
    constructor({ region }: { region?: string }) {
      this.#region = region;
    }
    async send() {
      regions.push(this.#region);
      const authorizationToken = Buffer.from(`AWS:password-${regions.length}`).toString('base64');
      return { authorizationData: [{ authorizationToken, expiresAt: new Date(clock.now() + 12 * HOUR) }] };
    }
  }
  const importPackage = async () => ({ ECRClient, GetAuthorizationTokenCommand: Object });
  return { clock, regions, provider: ecrCredentials({ host: HOST }, { clock, importPackage }) };
}

test('the region is the one in the name of the registry', async () => {
  const { provider, regions } = setUp();
  assert.deepEqual(await provider(), { username: 'AWS', password: 'password-1' });
  assert.deepEqual(regions, ['eu-west-2']);
});

test('callers at the same time share one request for a password, and it is renewed before it expires', async () => {
  const { provider, clock, regions } = setUp();
  await Promise.all([provider(), provider(), provider()]);
  clock.advance(11 * HOUR);
  await provider();
  assert.equal(regions.length, 1);
  clock.advance(HOUR - 60_000);
  assert.deepEqual(await provider(), { username: 'AWS', password: 'password-2' });
});

test('a password that is refused is requested again, but not with every pull', async () => {
  const { provider, clock, regions } = setUp();
  await provider();
  await provider({ refused: true });
  assert.equal(regions.length, 1, 'it is only seconds old');
  clock.advance(60_000);
  assert.deepEqual(await provider({ refused: true }), { username: 'AWS', password: 'password-2' });
});

test('Azure: the token is requested with the scope of its registries, and kept until five minutes before it expires', async () => {
  const clock = new FakeClock();
  const scopes: string[] = [];
  class DefaultAzureCredential {
    readonly #now = clock.now();
    async getToken(scope: string) {
      scopes.push(scope);
      return { token: `entra-${scopes.length}`, expiresOnTimestamp: this.#now + HOUR };
    }
  }
  const provider = acrCredentials({ clock, importPackage: async () => ({ DefaultAzureCredential }) });
  assert.deepEqual(await provider(), { entraToken: 'entra-1' });
  clock.advance(HOUR - 6 * 60_000);
  await provider();
  assert.deepEqual(scopes, ['https://containerregistry.azure.net/.default']);
  clock.advance(2 * 60_000);
  assert.deepEqual(await provider(), { entraToken: 'entra-2' });
});

test('without the SDK the error says what to install', async () => {
  const importPackage = async () => {
    throw new Error('Cannot find package');
  };
  const provider = ecrCredentials({ host: HOST }, { clock: new FakeClock(), importPackage });
  await assert.rejects(provider(), /npm install @aws-sdk\/client-ecr/);
  const azure = acrCredentials({ clock: new FakeClock(), importPackage });
  await assert.rejects(azure(), /npm install @azure\/identity/);
});
