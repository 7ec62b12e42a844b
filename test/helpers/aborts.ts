/** Pulls that are broken off by their clients, cold ones and warm ones. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { cleanUp } from './cleanup.ts';
import { FailingFileSystem } from './failing-file-system.ts';
import { noise } from './images.ts';
import { ScriptedUpstream } from './scripted-upstream.ts';
import { startMirror, type TestMirror } from './start-mirror.ts';

const MIB = 1024 * 1024;
const PULLS_A_ROUND = 20;

/** A client who has asked and not yet read. */
export function openPull(t: TestContext, mirror: TestMirror, path: string): Socket {
  const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1');
  socket.on('error', () => undefined);
  cleanUp(t, () => socket.destroy());
  socket.write(`GET ${path} HTTP/1.1\r\nHost: mirror\r\n\r\n`);
  return socket;
}

/** Looks afterwards for what they left behind. @param rounds of 20 pulls at once */
export async function abortAgainAndAgain(t: TestContext, rounds: number): Promise<void> {
  const upstream = await ScriptedUpstream.start(t);
  const disk = new FailingFileSystem();
  const cold = upstream.addContent(noise(4 * MIB, 'cold'));
  const warm = upstream.addContent(noise(4 * MIB, 'warm'));
  const gate = Promise.withResolvers<void>();
  const mirror = await startMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    fileSystem: disk.fileSystem,
  });
  await mirror.get(`/v2/a/b/blobs/${warm}`);
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: MIB, until: gate.promise };
  });
  for (let round = 0; round < rounds; round += 1) {
    const sockets = Array.from({ length: PULLS_A_ROUND }, (_, at) =>
      openPull(t, mirror, `/v2/a/b/blobs/${at % 2 === 0 ? cold : warm}`),
    );
    await Promise.all(sockets.map((socket) => once(socket, 'data')));
    for (const socket of sockets) socket.resetAndDestroy();
  }
  gate.resolve();
  assert.equal((await mirror.get(`/v2/a/b/blobs/${cold}`)).body.length, 4 * MIB);
  assert.equal(upstream.count('blob', 'GET'), 2, 'the fetch outlived all of its clients');
  await mirror.app.close();
  assert.equal(disk.openFiles, 0);
  const faults = mirror.log.filter(({ level }) => level === 'error');
  assert.deepEqual(faults, [], 'a client that leaves is no fault of ours');
}
