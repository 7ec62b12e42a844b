/** What `list` and `status` look like on terminals of two widths. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCommandLine } from '../../src/cli/program.ts';
import { cleanUp } from '../helpers/cleanup.ts';
import { FakeClock } from '../helpers/fake-clock.ts';
import { tempDir } from '../helpers/temp-dir.ts';

/** A mirror that answers every request with `body`. */
async function answering(t: TestContext, body: unknown): Promise<string> {
  const server = createServer((_, response) => response.end(JSON.stringify(body)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function millpond(
  args: string[],
  { environment = {}, columns }: { environment?: Record<string, string>; columns?: number },
): Promise<{ exitCode: number; lines: string[]; stderr: string }> {
  let [stdout, stderr] = ['', ''];
  const terminal = columns === undefined ? {} : { isTTY: true, columns };
  const exitCode = await runCommandLine(args, {
    ...{ version: '1.2.3', environment, cwd: '/', serve: async () => undefined },
    clock: new FakeClock(), // 2026-01-01
    stdout: { ...terminal, write: (text: string) => void (stdout += text) },
    stderr: { write: (text) => void (stderr += text) },
  });
  return { exitCode, lines: stdout.split('\n'), stderr };
}

const IMAGES = {
  images: [
    {
      name: 'registry.corp.example/platform/services/checkout/payment-gateway:2026-01-01-3f9a0c1',
      digest: `sha256:${'3f9a0c12b7de'.repeat(6).slice(0, 64)}`,
      platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'],
      size: 123_456_789,
      stored: 73_125_141,
      state: 'partial',
      missing: { blobs: 4, of: 7 },
      usedAt: '2025-12-31T23:57:00.000Z',
    },
    {
      name: 'docker.io/library/alpine:3.20',
      digest: `sha256:${'0'.repeat(64)}`,
      platforms: ['linux/amd64'],
      size: 3_600_000,
      stored: 3_600_000,
      state: 'complete',
      missing: { blobs: 0, of: 2 },
      usedAt: '2025-12-01T00:00:00.000Z',
    },
    {
      name: 'quay.io/org/tool:1',
      digest: `sha256:${'1'.repeat(64)}`,
      platforms: [],
      size: 1_200,
      stored: 1_200,
      state: 'list-only',
      missing: { blobs: 0, of: 0 },
      usedAt: '2025-12-31T23:59:00.000Z',
    },
  ],
};

const STATUS = {
  version: '1.2.3',
  startedAt: '2025-12-30T21:00:00.000Z',
  sealed: false,
  configuration: {
    file: '/etc/millpond/millpond.yaml',
    lastReload: { at: '2025-12-31T23:59:20.000Z', successful: false, problems: [] },
    waitsForRestart: ['cache.maxSize'],
  },
  store: {
    directory: '/var/lib/millpond',
    bytes: 40 * 2 ** 30,
    capacityBytes: 50 * 2 ** 30,
    freeBytes: 12 * 2 ** 30,
    objects: 1234,
    evictions: 56,
  },
  requests: { total: 100_000, hitRate: 0.987, byteHitRate: 0.912 },
  upstreams: [
    {
      ...{
        name: 'docker.io',
        up: true,
        outage: null,
        pausedUntil: '2026-01-01T00:00:42.000Z',
        requests: 321,
      },
      rateLimit: { limit: 100, remaining: 7, resetsAt: '2026-01-01T04:30:00.000Z' },
    },
    {
      ...{ name: 'registry.corp.example', up: false, pausedUntil: null, requests: 12 },
      outage: {
        reason: 'registry.corp.example cannot be reached',
        since: '2025-12-31T23:48:00.000Z',
        retryAt: '2026-01-01T00:00:31.000Z',
      },
      rateLimit: { limit: null, remaining: null, resetsAt: null },
    },
  ],
  warm: [
    {
      images: ['docker.io/library/alpine:3.20'],
      last: { at: '2025-12-31T22:00:00.000Z', images: 1, failed: 0 },
    },
    { images: ['ghcr.io/org/app:stable'], last: null },
  ],
};

for (const [what, body] of [
  ['list', IMAGES],
  ['status', STATUS],
] as const) {
  for (const columns of [80, 160, undefined]) {
    const name = `${what}-${columns ?? 'pipe'}`;
    test(`millpond ${what} ${columns === undefined ? 'in a pipe' : `on a terminal of ${columns} columns`} is test/golden/${name}.txt`, async (t) => {
      const server = await answering(t, body);
      const { lines } = await millpond([what, '--server', server], {
        ...(columns === undefined ? {} : { columns }),
      });
      if (process.env['UPDATE_GOLDEN']) await writeFile(goldenFile(name), lines.join('\n'));
      assert.equal(lines.join('\n'), await readFile(goldenFile(name), 'utf8'));
      const tables = lines.filter((line) => /^[\w./…:-]+ {2,}|^[A-Z]+ {2,}/.test(line));
      if (columns !== undefined) for (const line of tables) assert.ok(line.length <= columns, line);
    });
  }
}

test('list sorts by name, by size or by last use', async (t) => {
  const server = await answering(t, IMAGES);
  const first = async (order: string) =>
    (await millpond(['list', '--server', server, '--sort', order], {})).lines[1]?.split('/')[0];
  assert.deepEqual(
    [await first('name'), await first('size'), await first('used')],
    ['docker.io', 'registry.corp.example', 'quay.io'],
  );
  assert.equal((await millpond(['list', '--server', server, '--sort', 'age'], {})).exitCode, 2);
});

test('the mirror is found by MILLPOND_SERVER, with or without a scheme, or by its own configuration file', async (t) => {
  const server = await answering(t, IMAGES);
  const count = async (args: string[], environment: Record<string, string>) =>
    (await millpond(['list', ...args], { environment })).lines.length;
  assert.equal(await count([], { MILLPOND_SERVER: server }), 5);
  assert.equal(await count([], { MILLPOND_SERVER: `http://${server}` }), 5);
  const folder = await tempDir(t);
  const config = join(folder, 'millpond.yaml');
  await writeFile(config, `operations: { listen: '0.0.0.0:${server.split(':')[1]}' }\n`);
  assert.equal(await count(['--config', config], {}), 5);
  assert.equal(await count([], { MILLPOND_CONFIG: config }), 5);
  assert.equal(await count(['--server', server], { MILLPOND_SERVER: '127.0.0.1:1' }), 5);
  const wrong = await millpond(['list'], { environment: { MILLPOND_SERVER: 'millpond' } });
  assert.deepEqual(
    [wrong.exitCode, wrong.stderr],
    [
      1,
      'millpond: MILLPOND_SERVER is no address of a mirror: millpond; write it like localhost:5001, http://127.0.0.1:5001 or unix:/run/millpond.sock\n',
    ],
  );
});

test('status --watch shows the status again and again, from the top of the screen', async (t) => {
  const server = await answering(t, STATUS);
  let shown = '';
  const clock = new FakeClock();
  const rounds = 3;
  let slept = 0;
  const exitCode = await runCommandLine(['status', '--watch', '--server', server], {
    ...{ version: '1.2.3', environment: {}, cwd: '/', serve: async () => undefined },
    clock: {
      ...{ now: () => clock.now(), every: (ms: number, step: () => void) => clock.every(ms, step) },
      sleep: async () => {
        slept += 1;
        if (slept === rounds) throw new Error('interrupted by the test');
      },
    },
    stdout: Object.assign({ isTTY: true, columns: 80 }, { write: (text: string) => void (shown += text) }),
    stderr: { write: () => undefined },
  });
  assert.equal(exitCode, 1);
  assert.equal(shown.split('\x1b[H\x1b[2J').length, rounds + 1);
});

function goldenFile(name: string): URL {
  return new URL(`../golden/${name}.txt`, import.meta.url);
}
