import assert from 'node:assert/strict';
import dns from 'node:dns';
import { suite, type TestContext, test } from 'node:test';
import { UpstreamError } from '../../../src/upstream/errors.ts';
import { assertIdentity, readBody, replyError } from '../../../src/upstream/network/replies.ts';
import type { Reply, Transport, TransportSettings } from '../../../src/upstream/network/transport.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { type Script, ScriptedUpstream } from '../../helpers/scripted-upstream.ts';
import { startTransport } from '../../helpers/test-transport.ts';

const LIMIT = 1000;
const NOW = new FakeClock().now();
/** Never asked: these tests send to addresses of this machine, as a redirect of this registry would. */
const PUBLIC_REGISTRY = 'https://registry.example';

function transport(t: TestContext, settings: Partial<TransportSettings> & { url: string }): Transport {
  return startTransport(t, { name: 'quay.io', ...settings });
}

function get(through: Transport, url: string, headers: Record<string, string> = {}): Promise<Reply> {
  return through.send({ context: CONTEXT, method: 'GET', url: new URL(url), headers, kind: 'blob' });
}

function textBody(text: string) {
  const bytes = Buffer.from(text);
  return {
    start: 0,
    end: bytes.length,
    body: { size: bytes.length, slice: (from: number, to: number) => bytes.subarray(from, to) },
  };
}

/** The reply of an upstream that answers everything with `text`, changed by `script`. */
async function replyOf(t: TestContext, text: string, script: Script = () => {}): Promise<Reply> {
  const upstream = await ScriptedUpstream.start(t);
  upstream.script({}, (reply, request) => {
    Object.assign(reply, { status: 200, headers: {}, ...textBody(text) });
    script(reply, request);
  });
  return get(transport(t, { url: upstream.url }), `${upstream.url}/path?sig=SECRET`);
}

/** An upstream that redirects every request to `location`. */
async function leadingTo(t: TestContext, location: string): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(t);
  upstream.script({}, (reply) => Object.assign(reply, { status: 307, headers: { location } }));
  return upstream;
}

function upstreamError(code: string, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof UpstreamError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /SECRET|path/);
    return true;
  };
}

suite('a body', () => {
  test('is read as a whole up to the limit', async (t) => {
    const text = 'x'.repeat(LIMIT);
    assert.equal((await readBody(await replyOf(t, text), LIMIT, 'quay.io')).toString(), text);
  });

  test('that is one byte longer is refused', async (t) => {
    const reply = await replyOf(t, 'x'.repeat(LIMIT + 1));
    await assert.rejects(
      readBody(reply, LIMIT, 'quay.io'),
      upstreamError('invalid-response', /longer than 1000 bytes/),
    );
  });

  test('without an end is not read to its end', async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.script({}, (reply) => {
      const endless = {
        size: Number.MAX_SAFE_INTEGER,
        slice: (from: number, to: number) => Buffer.alloc(to - from),
      };
      Object.assign(reply, { status: 200, headers: {}, body: endless, start: 0, end: endless.size });
    });
    const reply = await get(transport(t, { url: upstream.url }), upstream.url);
    await assert.rejects(readBody(reply, LIMIT, 'quay.io'), upstreamError('invalid-response', /longer than/));
    await upstream.requests[0]?.done;
  });

  test('that breaks off is an outage, not half a body', async (t) => {
    const reply = await replyOf(t, 'x'.repeat(LIMIT), (reply) => {
      reply.headers['content-length'] = String(LIMIT);
      reply.cutAfter = LIMIT / 2;
    });
    await assert.rejects(
      readBody(reply, LIMIT, 'quay.io'),
      upstreamError('unavailable', /^quay\.io: the (connection broke|reply was shorter)/),
    );
  });

  for (const encoding of ['gzip', 'br', 'zstd', 'gzip, identity', 'x-unknown']) {
    test(`with Content-Encoding ${encoding} is refused: digests are over plain bytes`, async (t) => {
      const reply = await replyOf(t, 'encoded', ({ headers }) => {
        headers['content-encoding'] = encoding;
      });
      await assert.rejects(readBody(reply, LIMIT, 'quay.io'), upstreamError('invalid-response', /encoded/));
    });
  }

  for (const encoding of [undefined, '', 'identity', 'Identity']) {
    test(`with Content-Encoding ${String(encoding)} is taken`, async (t) => {
      const reply = await replyOf(t, 'plain', ({ headers }) => {
        headers['content-encoding'] = encoding;
      });
      assert.equal((await readBody(reply, LIMIT, 'quay.io')).toString(), 'plain');
    });
  }

  test('that is encoded gives its connection back', async (t) => {
    const reply = await replyOf(t, 'x'.repeat(LIMIT), ({ headers }) => {
      headers['content-encoding'] = 'gzip';
    });
    const closed = new Promise((resolve) => reply.body.once('close', resolve));
    assert.throws(() => assertIdentity(reply, 'quay.io'), upstreamError('invalid-response', /encoded/));
    assert.equal(reply.body.destroyed, true);
    await closed;
  });
});

suite('a refusal of upstream', () => {
  for (const [status, code] of [
    [400, 'invalid-response'],
    [401, 'denied'],
    [403, 'denied'],
    [404, 'not-found'],
    [405, 'invalid-response'],
    [408, 'timeout'],
    [410, 'not-found'],
    [416, 'invalid-response'],
    [418, 'invalid-response'],
    [429, 'rate-limited'],
    [500, 'unavailable'],
    [502, 'unavailable'],
    [503, 'unavailable'],
    [504, 'timeout'],
    [204, 'invalid-response'],
    [304, 'invalid-response'],
  ] as const) {
    test(`with status ${status} means ${code}`, async (t) => {
      const reply = await replyOf(t, '', (reply) => {
        reply.status = status;
        reply.body = undefined;
      });
      const error = await replyError(reply, 'quay.io', 'upstream', NOW);
      assert.equal(error.code, code);
      assert.equal(error.status, status);
      const advice = status === 429 ? ' (too many requests in a short time, not the pull quota: ' : '';
      assert.ok(error.message.startsWith(`quay.io: upstream answered ${status}${advice}`), error.message);
      if (advice === '') assert.equal(error.message, `quay.io: upstream answered ${status}`);
    });
  }

  test('keeps its code, its words and how long to wait', async (t) => {
    const text = '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\\ndown"},{"code":"OTHER"}]}';
    const reply = await replyOf(t, text, (reply) => {
      reply.status = 429;
      reply.headers['retry-after'] = '7';
    });
    const error = await replyError(reply, 'quay.io', 'upstream', NOW);
    assert.equal(error.message, 'quay.io: upstream answered 429: TOOMANYREQUESTS slow down');
    assert.equal(error.upstreamCode, 'TOOMANYREQUESTS');
    assert.equal(error.retryAfterMs, 7000);
  });

  test('is told in one short line of plain characters', async (t) => {
    const reply = await replyOf(t, `\u001b[31mred\u0000 ${'long '.repeat(500)}`, (reply) => {
      reply.status = 503;
      reply.headers['content-type'] = 'text/plain; charset=utf-8';
    });
    const { message } = await replyError(reply, 'quay.io', 'upstream', NOW);
    assert.match(message, /^quay\.io: upstream answered 503: \[31mred +long [\x20-\x7e]*$/);
    assert.ok(message.length < 300);
  });

  for (const [what, text] of [
    ['a page', '<html><title>Sign in</title></html>'],
    ['something that only begins like JSON', '{"errors":'],
    ['JSON of another kind', '{"errors":{"code":1}}'],
    ['nothing but null', 'null'],
    ['errors that are none', '{"errors":[null]}'],
    ['a code that is none', '{"errors":[{"code":"<script>","message":5}]}'],
  ] as const) {
    test(`with ${what} instead of an error is told by its status alone`, async (t) => {
      const reply = await replyOf(t, text, (reply) => {
        reply.status = 403;
        reply.headers['content-type'] = 'text/html';
      });
      const error = await replyError(reply, 'quay.io', 'upstream', NOW);
      assert.equal(error.message, 'quay.io: upstream answered 403');
      assert.equal(error.upstreamCode, undefined);
    });
  }

  for (const [what, script] of [
    ['is encoded', ({ headers }) => void (headers['content-encoding'] = 'gzip')],
    ['breaks off', (reply) => void (reply.cutAfter = 5)],
    ['is endless', (reply) => void Object.assign(reply, textBody('x'.repeat(100_000)))],
  ] as [string, Script][]) {
    test(`that ${what} is told by its status alone`, async (t) => {
      const reply = await replyOf(t, 'x'.repeat(LIMIT), (reply, request) => {
        reply.status = 500;
        reply.headers['content-type'] = 'text/plain';
        script(reply, request);
      });
      const error = await replyError(reply, 'quay.io', 'upstream', NOW);
      assert.equal(error.message, 'quay.io: upstream answered 500');
    });
  }
});

suite('a public registry does not lead the mirror into the private network', () => {
  test('by a redirect to an address', async (t) => {
    const inside = await ScriptedUpstream.start(t);
    const public_ = await leadingTo(t, `${inside.url}/metadata`);
    const through = transport(t, { url: PUBLIC_REGISTRY });
    await assert.rejects(
      get(through, public_.url),
      upstreamError('invalid-response', /127\.0\.0\.1:\d+, which is not public/),
    );
    assert.equal(public_.requests.length, 1);
    assert.equal(inside.totalConnections, 0);
  });

  test('by a name that turns out to lead there when it is connected to', async (t) => {
    const inside = await ScriptedUpstream.start(t);
    const through = transport(t, { url: PUBLIC_REGISTRY });
    const url = inside.url.replace('127.0.0.1', 'localhost');
    await assert.rejects(
      get(through, url),
      upstreamError('invalid-response', /localhost resolves to .*allowPrivateAddresses/),
    );
    assert.equal(inside.totalConnections, 0);
  });

  test('by the realm of a challenge', (t) => {
    const through = transport(t, { url: PUBLIC_REGISTRY });
    for (const realm of [
      'https://10.0.0.1/token',
      'https://[::ffff:127.0.0.1]/token',
      'https://localhost/token',
    ]) {
      assert.throws(
        () => through.assertPublic(new URL(realm)),
        upstreamError('invalid-response', /is not public; if this is intended, set allowPrivateAddresses/),
        realm,
      );
    }
    through.assertPublic(new URL('https://auth.example/token'));
  });

  test('unless allowPrivateAddresses says so', async (t) => {
    const inside = await ScriptedUpstream.start(t);
    const public_ = await leadingTo(t, inside.url.replace('127.0.0.1', 'localhost'));
    const through = transport(t, { url: PUBLIC_REGISTRY, allowPrivateAddresses: true });
    through.assertPublic(new URL('https://10.0.0.1/token'));
    assert.equal((await get(through, public_.url)).status, 404);
    assert.equal(inside.requests.length, 1);
  });
});

test('a name with an IPv6 address that leads nowhere is reached by its IPv4 one', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const asked: string[] = [];
  t.mock.method(dns, 'lookup', (hostname: string, ...[options, callback]: unknown[]) => {
    asked.push(hostname);
    assert.deepEqual([typeof callback, (options as { all?: boolean }).all], ['function', true]);
    const addresses = [
      { address: '2001:db8::1', family: 6 }, // RFC 3849: for documentation, so nothing answers
      { address: '127.0.0.1', family: 4 },
    ];
    process.nextTick(callback as (error: null, found: typeof addresses) => void, null, addresses);
  });
  const url = upstream.url.replace('127.0.0.1', 'dual.registry.example');
  assert.equal((await get(transport(t, { url }), url)).status, 404);
  assert.deepEqual(asked, ['dual.registry.example']);
});

test('Authorization does not come back after a redirect through another host', async (t) => {
  const registry = await ScriptedUpstream.start(t);
  const elsewhere = await leadingTo(t, `${registry.url}/back`);
  registry.script({ path: /^\/start$/ }, (reply) =>
    Object.assign(reply, { status: 302, headers: { location: elsewhere.url } }),
  );
  await get(transport(t, { url: registry.url }), `${registry.url}/start`, { Authorization: 'Bearer t' });
  const seen = [...registry.requests, ...elsewhere.requests].map(({ path, headers }) => [
    path,
    headers.authorization,
  ]);
  assert.deepEqual(seen, [
    ['/start', 'Bearer t'],
    ['/back', undefined],
    ['/', undefined],
  ]);
});
