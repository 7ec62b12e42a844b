import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { prettyDestination } from '../../src/telemetry/log.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { type MirrorOptions, startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const MANIFEST = '/v2/a/b/manifests/1';

type Row = [what: string, run: (t: TestContext) => Promise<TestMirror>, logged: RegExp];

async function mirrorOf(t: TestContext, options: Partial<MirrorOptions> = {}) {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('a/b', '1');
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url }, ...options });
  return { upstream, mirror };
}

/** Pulls a manifest often enough for the breaker to open, too. */
async function pull(mirror: TestMirror): Promise<TestMirror> {
  for (let n = 0; n < 6; n += 1) await mirror.get(MANIFEST);
  return mirror;
}

/** Pulls from an upstream that answers everything with a status. */
function answering(status: number, code: string): Row[1] {
  return async (t) => {
    const { upstream, mirror } = await mirrorOf(t);
    upstream.script({}, (reply) => void Object.assign(reply, errorReply(status, code)));
    return pull(mirror);
  };
}

function reaching(url: string): Row[1] {
  return async (t) => pull((await mirrorOf(t, { upstreams: { 'docker.io': url } })).mirror);
}

const ROWS: Row[] = [
  [
    'an upstream whose name does not resolve',
    reaching('http://registry.invalid'),
    /registry\.invalid cannot be resolved/,
  ],
  ['an upstream that refuses connections', reaching('http://127.0.0.1:1'), /the connection was refused/],
  ['an upstream that answers 503', answering(503, 'UNAVAILABLE'), /answered 503/],
  ['an upstream that answers 401', answering(401, 'UNAUTHORIZED'), /answered 401/],
  ['an upstream that answers 429', answering(429, 'TOOMANYREQUESTS'), /upstream rate limit/],
  [
    'a blob that breaks off',
    async (t) => {
      const { upstream, mirror } = await mirrorOf(t);
      const digest = upstream.addContent(Buffer.alloc(100_000, 1));
      upstream.script({ kind: 'blob' }, (reply) => void (reply.cutAfter = 0));
      await assert.rejects(mirror.get(`/v2/a/b/blobs/${digest}`));
      await mirror.idle();
      return mirror;
    },
    /the connection broke/,
  ],
  [
    'credentials that cannot be read',
    async (t) => {
      const upstream = await ScriptedUpstream.start(t, { auth: {} });
      const credentials = { helper: 'that-is-not-there' };
      return pull(await startMirror(t, { upstreams: { 'docker.io': { url: upstream.url, credentials } } }));
    },
    /its credentials cannot be read/,
  ],
  [
    'bad input',
    async (t) => {
      const { mirror } = await mirrorOf(t);
      for (const path of ['/v2/a/b/manifests/%00', '/v2/A/b/manifests/1', '/v2/a/b/blobs/sha256:1', '/x'])
        assert.ok((await mirror.get(path)).status >= 400);
      return mirror;
    },
    /"status":40/,
  ],
  [
    'a disk that is full',
    async (t) => {
      const disk = new FailingFileSystem();
      const { mirror } = await mirrorOf(t, { fileSystem: disk.fileSystem });
      disk.fail('write', 'ENOSPC');
      return pull(mirror);
    },
    /"code":"ENOSPC"/,
  ],
];

for (const [what, run, logged] of ROWS) {
  test(`${what}: the log tells it in one line each, and shows no stack`, async (t) => {
    const { log } = await run(t);
    const lines = log.map((line) => JSON.stringify(line));
    assert.match(lines.join('\n'), logged);
    assert.deepEqual(
      lines.filter((line) => /stack|\\n +at /.test(line)),
      [],
    );
    const shown: string[] = [];
    const pretty = prettyDestination({ write: (text: string) => shown.push(text) });
    for (const line of lines) pretty.write(line);
    assert.ok(shown.every((text) => text.split('\n').length === 2));
  });
}

test('a defect of ours is logged with its stack, also below an error that has a type', async (t) => {
  const { mirror } = await mirrorOf(t, {
    fileSystem: {
      ...nodeFileSystem,
      rename: async () => {
        throw new TypeError('a defect');
      },
    },
  });
  await pull(mirror);
  const line = mirror.log.find(({ level }) => level === 'error');
  assert.match(JSON.stringify(line), /"stack":"[^"]*a defect\\n +at /);
  const shown: string[] = [];
  prettyDestination({ write: (text: string) => shown.push(text) }).write(JSON.stringify(line));
  assert.match(shown.join(''), /\n +at .*stacks\.test\.ts/);
});
