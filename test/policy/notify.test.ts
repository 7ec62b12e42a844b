/** Changed verdicts are told to a URL. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FakeClock } from '../helpers/fake-clock.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

async function startReceiver(t: TestContext) {
  const told: Record<string, unknown>[] = [];
  const state = { status: 200 };
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      if (state.status === 200) told.push(JSON.parse(body) as Record<string, unknown>);
      response.writeHead(state.status).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close().closeAllConnections());
  return { told, state, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/verdicts` };
}

test('a first refusal, a second one after an allow, and an allow after a refusal are told once, also after failures', async (t) => {
  const receiver = await startReceiver(t);
  const directory = await tempDir(t);
  const file = join(directory, 'denied.txt');
  await writeFile(file, '');
  const upstream = await ScriptedUpstream.start(t);
  const { top } = upstream.addImage('org/app', '1');
  const clock = new FakeClock();
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': upstream.url },
    ...{ directory, clock, notify: receiver.url },
    policies: [{ name: 'known-bad', deny: { digests: [file] } }],
  });
  const status = async () => (await mirror.get('/v2/org/app/manifests/1')).status;
  const become = async (denied: string, expected: number) => {
    await writeFile(file, denied);
    while ((await status()) !== expected) {
      clock.advance(31_000);
      await setImmediate();
    }
  };
  const toldOf = async (count: number) => {
    while (receiver.told.length < count) await setImmediate();
    return receiver.told.map(({ decision }) => decision);
  };
  assert.equal(await status(), 200);
  await become(top.digest, 403);
  assert.deepEqual(await toldOf(1), ['deny']);
  const [{ at, ...rest } = {}] = receiver.told;
  assert.ok(!Number.isNaN(Date.parse(String(at))));
  assert.deepEqual(rest, {
    ...{ policy: 'known-bad', mode: 'enforce', decision: 'deny' },
    image: `ghcr.io/org/app@${top.digest}`,
    reason: `${top.digest} is denied`,
  });
  receiver.state.status = 500;
  await become('', 200);
  receiver.state.status = 200;
  assert.deepEqual(await toldOf(2), ['deny', 'allow']);
  assert.equal(await status(), 200);
  await become(top.digest, 403);
  assert.deepEqual(await toldOf(3), ['deny', 'allow', 'deny']);
});

test('after a reload that failed the old URL is still told, and a failure is logged without the path of the URL', async (t) => {
  const receiver = await startReceiver(t);
  const directory = await tempDir(t);
  const [file, config] = [join(directory, 'denied.txt'), join(directory, 'millpond.yaml')];
  await writeFile(file, '');
  const upstream = await ScriptedUpstream.start(t);
  const { top } = upstream.addImage('org/app', '1');
  const clock = new FakeClock();
  const mirror = await startMirror(t, {
    upstreams: { 'ghcr.io': upstream.url },
    ...{ directory, clock, notify: receiver.url, watchConfig: false },
    policies: [{ name: 'known-bad', deny: { digests: [file] } }],
  });
  const written = await readFile(config, 'utf8');
  await writeFile(file, 'no digest');
  await writeFile(config, written.replace(receiver.url, 'http://127.0.0.1:9/other'));
  await mirror.app.reload();
  assert.ok(mirror.log.some(({ msg }) => String(msg).startsWith('configuration not reloaded')));
  const become = async (denied: string, expected: number) => {
    await writeFile(file, denied);
    while ((await mirror.get('/v2/org/app/manifests/1')).status !== expected) {
      clock.advance(31_000);
      await setImmediate();
    }
  };
  await become(top.digest, 403);
  while (receiver.told.length < 1) await setImmediate();
  receiver.state.status = 500;
  await become('', 200);
  const untold = () => mirror.log.find(({ msg }) => msg === 'a changed verdict could not be told');
  while (untold() === undefined) {
    clock.advance(61_000);
    await setImmediate();
  }
  assert.equal(untold()?.['host'], new URL(receiver.url).host);
  assert.ok(!JSON.stringify(untold()).includes('/verdicts'));
});
