import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { request } from 'undici';
import { noise } from '../helpers/images.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { freePort, missingPrograms, startProcess, until } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const README = resolve(import.meta.dirname, '../../README.md');
const BYTES = noise(5_000_000, 'front');
const skip = missingPrograms('nginx');
/** Debian's name for the group of an nginx that may do nothing else. */
const GROUP = 'nogroup';

/** The README's own configuration, with the ports and the folder of this test. */
async function startFront(t: TestContext, directory: string, mirrorPort: number): Promise<string> {
  const [, documented] = /```nginx\n([^`]+)```/.exec(await readFile(README, 'utf8')) ?? [];
  assert.ok(documented !== undefined);
  const port = await freePort();
  const servers = documented
    .replace('127.0.0.1:5000', `127.0.0.1:${mirrorPort}`)
    .replace('listen 8080', `listen 127.0.0.1:${port}`)
    .replace('/var/lib/millpond/blobs/', `${directory}/data/blobs/`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${directory}/${kind};`)
    .join('\n');
  const file = join(directory, 'nginx.conf');
  await writeFile(
    file,
    `daemon off;\nuser nobody ${GROUP};\npid ${directory}/nginx.pid;\nevents {}\nhttp {\naccess_log off;\nsendfile on;\n${temporary}\n${servers}}\n`,
  );
  await mkdir(join(directory, 'front'));
  const nginx = startProcess(t, 'nginx', ['-c', file, '-e', join(directory, 'error.log')]);
  const url = `http://127.0.0.1:${port}`;
  await until('nginx', nginx, async () => (await fetch(`${url}/v2/`)).ok);
  return url;
}

test('nginx as the README configures it sends warm blobs itself: whole, by range, with all headers; cold ones come through', {
  skip,
}, async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const digest = upstream.addContent(BYTES);
  const directory = await tempDir(t);
  await chmod(directory, 0o711); // as /var/lib
  const mirror = await startRealMirror(t, directory, {
    server: { listen: '127.0.0.1:0', accelRedirect: '/blobs/', trustedProxies: ['127.0.0.1'] },
    cache: { directory: join(directory, 'data'), group: GROUP },
    upstreams: { 'docker.io': { url: upstream.url } },
  });
  const front = await startFront(t, directory, mirror.port);
  const get = async (headers: Record<string, string> = {}) => {
    const reply = await request(`${front}/v2/a/b/blobs/${digest}`, { headers });
    const body = Buffer.from(await reply.body.arrayBuffer());
    return { status: reply.statusCode, headers: reply.headers, body };
  };

  for (const cacheStatus of ['millpond; fwd=uri-miss; stored', 'millpond; hit', 'millpond; hit']) {
    const { status, headers, body } = await get();
    assert.equal(status, 200);
    assert.ok(body.equals(BYTES));
    assert.deepEqual(
      [
        headers['cache-status'],
        headers['docker-content-digest'],
        headers['etag'],
        headers['content-type'],
        headers['content-length'],
        headers['accept-ranges'],
      ],
      [cacheStatus, digest, `"${digest}"`, 'application/octet-stream', String(BYTES.length), 'bytes'],
    );
    assert.equal(headers['x-accel-redirect'], undefined, 'where the files lie is not for clients');
  }
  const range = await get({ range: 'bytes=1000000-1999999' });
  assert.equal(range.status, 206);
  assert.equal(range.headers['content-range'], `bytes 1000000-1999999/${BYTES.length}`);
  assert.ok(range.body.equals(BYTES.subarray(1_000_000, 2_000_000)));
  assert.equal(upstream.count('blob', 'GET'), 1);
  const outside = await request(`${front}/blobs/sha256/${digest.slice(7, 9)}/${digest.slice(7)}`);
  await outside.body.dump();
  assert.equal(outside.statusCode, 404, 'the folder itself cannot be asked for');
  await mirror.stop(); // which writes the last lines of its log
  const sent = mirror.process.lines.filter((line) => line.includes('"kind":"blob"'));
  assert.equal(sent.length, 4);
});
