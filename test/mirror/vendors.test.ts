import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import type { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { assertTellsNoSecret } from '../helpers/secrets.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';
import { startVendor, VENDORS, type Vendor } from '../helpers/vendors.ts';

const PASSWORD = 'correct-horse-battery';
const CLIENT = { authorization: 'Basic Y2xpZW50Om93bg==', cookie: 'session=mine' };
const SECRETS = [PASSWORD, 'token-1', 'token-2', 'Y2xpZW50Om93bg', 'session=mine'];

async function setUp(t: TestContext, vendor: Vendor, accepted?: string, password = accepted) {
  const credentials = accepted === undefined ? undefined : { username: vendor.username, password: accepted };
  const upstream = await startVendor(t, vendor, credentials);
  const image = upstream.addImage('org/app', '1', { layers: [3000] });
  const own =
    password === undefined
      ? {}
      : { credentials: { username: vendor.username, password: { env: 'PASSWORD' } } };
  const mirror = await startMirror(t, {
    upstreams: { [vendor.host]: { url: upstream.url, ...own } },
    environment: password === undefined ? {} : { PASSWORD: password },
  });
  const pull = async () => {
    const manifest = await mirror.get('/v2/org/app/manifests/1', CLIENT);
    const blobs = await Promise.all(
      image.blobs.map((blob) => mirror.get(`/v2/org/app/blobs/${digestOf(blob)}`, CLIENT)),
    );
    return [manifest, ...blobs];
  };
  const whole = [image.top.bytes, ...image.blobs];
  return { upstream, mirror, image, pull, whole };
}

/** Upstream must not see the secrets of the client, and the target of a redirect must not see ours. */
function assertDiscreet(upstream: ScriptedUpstream): void {
  for (const { kind, headers } of upstream.requests) {
    assert.equal(headers.cookie, undefined);
    assert.notEqual(headers.authorization, CLIENT.authorization);
    if (kind === 'cdn') assert.equal(headers.authorization, undefined, 'an object store refuses it');
  }
}

async function assertSilent(mirror: TestMirror, replies: { body: Buffer }[]): Promise<void> {
  await assertTellsNoSecret(
    mirror,
    replies.map(({ body }) => body).filter((body) => body[0] === 0x7b),
    SECRETS,
  );
}

for (const vendor of VENDORS) {
  suite(vendor.name, () => {
    if (vendor.anonymous) {
      test('a public image is pulled whole without credentials, and a second pull asks nobody', async (t) => {
        const { upstream, mirror, pull, whole } = await setUp(t, vendor);
        const replies = await pull();
        assert.deepEqual(
          replies.map(({ body }) => body),
          whole,
        );
        await mirror.idle();
        const asked = upstream.requests.length;
        await pull();
        assert.equal(upstream.requests.length, asked);
        const scopes = new Set(upstream.tokens?.requests.map(({ scope }) => scope));
        const expected = vendor.challenge === undefined ? [] : [vendor.scope ?? 'repository:org/app:pull'];
        assert.deepEqual([...scopes], expected);
        assertDiscreet(upstream);
        await assertSilent(mirror, replies);
      });
    }

    if (vendor.challenge !== undefined) {
      test('a private image is pulled whole with credentials, and one token serves all of it', async (t) => {
        const { upstream, mirror, pull, whole } = await setUp(t, vendor, PASSWORD);
        const replies = await pull();
        assert.deepEqual(
          replies.map(({ body }) => body),
          whole,
        );
        assert.ok((upstream.tokens?.requests.length ?? 1) === 1);
        assertDiscreet(upstream);
        await assertSilent(mirror, replies);
      });

      test('wrong credentials are a refusal, after a bounded number of requests', async (t) => {
        const { upstream, mirror, pull } = await setUp(t, vendor, PASSWORD, 'wrong');
        const [manifest] = await pull();
        assert.deepEqual([manifest?.status, manifest?.error], [403, 'DENIED']);
        const perRequest = (upstream.requests.length + (upstream.tokens?.requests.length ?? 0)) / 3;
        assert.ok(perRequest <= 4, `${perRequest} requests for one of the client's`);
        await assertSilent(mirror, manifest === undefined ? [] : [manifest]);
      });

      test('a token that ends early is renewed once, and the pull goes on', async (t) => {
        const { upstream, mirror } = await setUp(t, vendor, PASSWORD);
        assert.equal((await mirror.get('/v2/org/app/tags/list')).status, 200);
        const before = upstream.tokens?.requests.length ?? 0;
        upstream.tokens?.expireAll();
        assert.equal((await mirror.get('/v2/org/app/tags/list')).status, 200);
        assert.equal((upstream.tokens?.requests.length ?? 0) - before, upstream.tokens === undefined ? 0 : 1);
      });
    }

    test('an image that is not there is an answer, and no loop', async (t) => {
      const { upstream, mirror } = await setUp(t, vendor, vendor.anonymous ? undefined : PASSWORD);
      if (vendor.tokenRefuses && upstream.tokens !== undefined) {
        upstream.tokens.refusal = { status: 403, body: '{"errors":[{"code":"DENIED","message":"denied"}]}' };
      }
      const reply = await mirror.get('/v2/org/missing/manifests/1');
      const hidden = vendor.missing.status !== 404 || vendor.tokenRefuses === true;
      assert.deepEqual([reply.status, reply.error], hidden ? [403, 'DENIED'] : [404, 'MANIFEST_UNKNOWN']);
      const asked = upstream.requests.length + (upstream.tokens?.requests.length ?? 0);
      assert.ok(asked <= 6, `${asked} requests`);
    });

    test('HEAD of a blob tells its size and moves none of it', async (t) => {
      const { upstream, mirror, image } = await setUp(t, vendor, vendor.anonymous ? undefined : PASSWORD);
      const [, layer = Buffer.alloc(0)] = image.blobs;
      const reply = await mirror.head(`/v2/org/app/blobs/${digestOf(layer)}`);
      assert.deepEqual([reply.status, reply.headers['content-length']], [200, String(layer.length)]);
      assert.ok(upstream.blobBytesSent() <= 1);
    });
  });
}
