/** The dashboard by a real Prometheus that scrapes two mirrors, to which everything happens that a panel shows. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { stringify } from 'yaml';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../helpers/images.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { freePort, missingPrograms, startProcess, until } from '../helpers/real-processes.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('prometheus');
const ROOT = resolve(import.meta.dirname, '../..');
const MIB = 1024 * 1024;
const ROUNDS = 60;

interface Dashboard {
  panels: { title: string; targets?: { expr: string }[] }[];
}

/** All queries, with the variables as Grafana fills them in when everything is chosen. */
function queries(): Map<string, string> {
  const file = join(ROOT, 'deploy/grafana/millpond.json');
  const { panels } = JSON.parse(readFileSync(file, 'utf8')) as Dashboard;
  const found = panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }, at): [string, string] => [
      `${title} ${at + 1}`,
      expr
        .replaceAll('$__rate_interval', '20s')
        .replaceAll('$__range', '2m')
        .replaceAll(/"\$(?:job|instance|upstream)"/g, '".*"'),
    ]),
  );
  return new Map(found);
}

async function startPrometheus(t: TestContext, mirrors: readonly RealMirror[]): Promise<string> {
  const directory = await tempDir(t);
  const config = {
    global: { scrape_interval: '1s', evaluation_interval: '1s' },
    rule_files: [join(ROOT, 'deploy/prometheus/alerts.yaml')],
    scrape_configs: [
      {
        job_name: 'millpond',
        static_configs: [{ targets: mirrors.map(({ operationsPort }) => `127.0.0.1:${operationsPort}`) }],
      },
    ],
  };
  await writeFile(join(directory, 'prometheus.yml'), stringify(config));
  const address = `127.0.0.1:${await freePort()}`;
  const process = startProcess(t, 'prometheus', [
    `--config.file=${join(directory, 'prometheus.yml')}`,
    `--storage.tsdb.path=${join(directory, 'data')}`,
    `--web.listen-address=${address}`,
  ]);
  await until('Prometheus', process, async () => (await fetch(`http://${address}/-/ready`)).ok);
  return `http://${address}`;
}

/** @returns whether there is a number. A query that is refused throws */
async function hasData(prometheus: string, query: string): Promise<boolean> {
  const reply = await fetch(`${prometheus}/api/v1/query?${new URLSearchParams({ query }).toString()}`);
  const answer = (await reply.json()) as {
    status: string;
    error?: string;
    data: { result: { value: [number, string] }[] };
  };
  assert.equal(answer.status, 'success', `${query}: ${answer.error}`);
  return answer.data.result.some(({ value: [, text] }) => Number.isFinite(Number(text)));
}

test('every query of every panel returns data from two mirrors with an outage, a 429, wrong content, evictions and a full disk', {
  skip,
}, async (t) => {
  const [upstream, limited] = [await ScriptedUpstream.start(t), await ScriptedUpstream.start(t)];
  upstream.script({ kind: 'manifest' }, ({ headers }) => {
    headers['ratelimit-limit'] = '100;w=3600';
    headers['ratelimit-remaining'] = '42;w=3600';
  });
  limited.script({}, (reply) =>
    Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS', { 'retry-after': '1' })),
  );
  const start = async () =>
    startRealMirror(t, await tempDir(t), {
      upstreams: {
        'docker.io': { url: upstream.url },
        'limited.test': { url: limited.url },
        'gone.test': { url: `http://127.0.0.1:${await freePort()}` },
      },
      cache: { directory: join(await tempDir(t), 'data'), maxSize: '4MiB', keepFree: '0B' },
    });
  const mirrors = [await start(), await start()];
  const prometheus = await startPrometheus(t, mirrors);

  const get = async ({ port }: RealMirror, path: string) => {
    const reply = await fetch(`http://127.0.0.1:${port}/v2/${path}`).catch(() => undefined);
    await reply?.arrayBuffer().catch(() => undefined); // wrong content is cut
    return reply?.status;
  };
  const tooLarge = upstream.addContent(noise(8 * MIB, 'too large'));
  const round = async (mirror: RealMirror, number: number) => {
    const { blobs } = upstream.addImage('org/app', String(number), { layers: [MIB], seed: `${number}` });
    await get(mirror, `org/app/manifests/${number}`);
    for (const blob of blobs) await get(mirror, `org/app/blobs/${digestOf(blob)}`);
    await get(mirror, `org/app/manifests/${number}`);
    await get(mirror, `org/app/blobs/${tooLarge}`);
    const wrong = upstream.addContent(noise(1000, `wrong ${number}`));
    upstream.script({ kind: 'blob', path: new RegExp(wrong) }, (reply) => {
      reply.corruptAt = 10;
    });
    await get(mirror, `org/app/blobs/${wrong}`);
    await get(mirror, 'limited.test/org/app/manifests/1');
    await get(mirror, 'gone.test/org/app/manifests/1');
  };
  const left = queries();
  assert.ok(left.size > 30);
  for (let number = 0; number < ROUNDS && left.size > 0; number += 1) {
    await Promise.all(mirrors.map((mirror) => round(mirror, number)));
    for (const [name, query] of left) if (await hasData(prometheus, query)) left.delete(name);
    await new Promise((resolve) => setTimeout(resolve, 1_000)); // Prometheus looks once a second
  }
  assert.deepEqual([...left.keys()], []);
  const alerts = await fetch(`${prometheus}/api/v1/rules`);
  const { data } = (await alerts.json()) as { data: { groups: { rules: { health: string }[] }[] } };
  const health = data.groups.flatMap((group) => group.rules).map((rule) => rule.health);
  assert.deepEqual([...new Set(health)], ['ok'], 'every alert can be evaluated');
});
