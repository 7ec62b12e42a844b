import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { basic, writeHtpasswd } from '../helpers/access-files.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MIB = 1024 * 1024;
const MINUTES = 10;
/** Of the last five minutes, from the highest minute to the lowest. */
const ALLOWED_DIFFERENCE_BYTES = 10 * MIB;
const A_SECOND = 500;
const PASSWORD = 'a password of anna';

test('ten minutes of wrong passwords, missing tags and missing repositories: memory stays flat over the last five', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/app', '1');
  const directory = await tempDir(t);
  const mirror = await startRealMirror(t, directory, {
    upstreams: { 'docker.io': { url: upstream.url } },
    log: { access: 'none' },
    access: {
      users: { htpasswd: await writeHtpasswd(directory, { anna: PASSWORD }) },
      rules: [{ who: 'user:anna', pull: '*' }],
    },
  });
  // A login that has to wait, by the pace of failed logins, holds its connection for up to ten seconds.
  const agent = new Agent({ keepAlive: true, maxSockets: 2_000 });
  cleanUp(t, () => agent.destroy());
  const ask = (path: string, headers: Record<string, string>) =>
    new Promise<void>((resolve) => {
      request({ agent, host: '127.0.0.1', port: mirror.port, path, headers }, (reply) =>
        reply.once('close', resolve).resume(),
      )
        .once('error', () => resolve())
        .end();
    });
  const login = await fetch(`http://127.0.0.1:${mirror.port}/token`, {
    headers: { authorization: basic('anna', PASSWORD) },
  });
  const authorization = `Bearer ${((await login.json()) as { token: string }).token}`;
  const residentByMinute: number[] = [];
  const pending = new Set<Promise<void>>();
  let n = 0;
  for (let minute = 0; minute < MINUTES; minute += 1) {
    const readings: number[] = [];
    for (let second = 0; second < 60; second += 1) {
      const startedAt = performance.now();
      for (let count = 0; count < A_SECOND; count += 1) {
        const asked = ask(...nextRequest(authorization, n++)).finally(() => pending.delete(asked));
        pending.add(asked);
      }
      await setTimeout(Math.max(0, 1000 - (performance.now() - startedAt)));
      readings.push(resident(mirror.process.pid));
      // Logins are held, a thousand at most; all else is answered as it comes.
      assert.ok(pending.size <= 1_000 + A_SECOND, `${pending.size} requests wait`);
    }
    residentByMinute.push(readings.toSorted((a, b) => a - b)[30] ?? 0);
  }
  await Promise.all(pending);
  t.diagnostic(`MiB by minute: ${residentByMinute.map((bytes) => Math.round(bytes / MIB)).join(' ')}`);
  const last = residentByMinute.slice(-5);
  assert.ok(Math.max(...last) - Math.min(...last) <= ALLOWED_DIFFERENCE_BYTES, last.join(' '));
});

/** In turn a login with a wrong password, and names that do not exist. */
function nextRequest(authorization: string, n: number): [path: string, headers: Record<string, string>] {
  if (n % 5 === 0) return ['/token', { authorization: basic(`user-${n % 1000}`, `wrong ${n}`) }];
  const path = n % 2 === 0 ? `/v2/org/app/manifests/missing-${n}` : `/v2/org/missing-${n}/manifests/1`;
  return [path, { authorization }];
}

function resident(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) * 1024;
}
