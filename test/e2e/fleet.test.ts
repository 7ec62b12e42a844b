/** A fleet on real engines: nodes as processes, a real registry, a real object store. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { S3Store } from '../../src/fleet/objects/s3-store.ts';
import { engine, missingEngines } from '../helpers/engines.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import { noise } from '../helpers/images.ts';
import { assertKeepsRules, assertRefusesLateRemovals } from '../helpers/object-store-rules.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { type RealObjectStore, STORE_ENVIRONMENT, startObjectStore } from '../helpers/real-object-store.ts';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { makeImage, pushImage, RealRegistry } from '../helpers/real-registry.ts';
import { tempDir } from '../helpers/temp-dir.ts';

/** Of 1 MiB each. */
const PIECES = 260;
const skip = missingPrograms('docker-registry', 'skopeo') || missingEngines('crane', 'versitygw');

test('versitygw keeps the rules of object stores', { skip }, async (t) => {
  const { url } = await startObjectStore(t);
  const { FLEET_KEY_ID: accessKeyId, FLEET_KEY: secretAccessKey } = STORE_ENVIRONMENT;
  const store = new S3Store({
    ...{ bucket: 'millpond', endpoint: url, region: 'us-east-1', prefix: 'test/', ca: undefined },
    clock: systemClock,
    credentials: async () => ({ accessKeyId, secretAccessKey }),
  });
  await assertKeepsRules(t, store);
  store.close();
  await assertRefusesLateRemovals(
    (clock) =>
      new S3Store({
        ...{ bucket: 'millpond', endpoint: url, region: 'us-east-1', prefix: 'test/', ca: undefined },
        clock,
        credentials: async () => ({ accessKeyId, secretAccessKey }),
      }),
  );
});

test('an object of more than 256 MiB is written in parts, whole or not at all', { skip }, async (t) => {
  const { url } = await startObjectStore(t);
  const { FLEET_KEY_ID: accessKeyId, FLEET_KEY: secretAccessKey } = STORE_ENVIRONMENT;
  const store = new S3Store({
    ...{ bucket: 'millpond', endpoint: url, region: 'us-east-1', prefix: 'test/', ca: undefined },
    clock: systemClock,
    credentials: async () => ({ accessKeyId, secretAccessKey }),
  });
  const { signal } = new AbortController();
  const piece = noise(1024 * 1024, 'part');
  const open = (pieces: number, fails: boolean) => () =>
    Readable.from(
      (async function* () {
        for (let at = 0; at < pieces; at += 1) yield piece;
        if (fails) throw new Error('the disk failed');
      })(),
      { objectMode: false },
    );
  const size = PIECES * piece.length;
  await assert.rejects(
    store.put('large', { size, open: open(PIECES - 1, true) }, { signal }),
    /the disk failed/,
  );
  assert.equal(await store.get('large', { signal }), undefined);
  assert.notEqual(
    await store.put('large', { size, open: open(PIECES, false) }, { onlyIf: 'absent', signal }),
    'present',
  );
  assert.equal(
    await store.put('large', { size, open: open(PIECES, false) }, { onlyIf: 'absent', signal }),
    'present',
  );
  const found = await store.get('large', { from: size - piece.length, signal });
  assert.equal(found?.size, size);
  assert.ok((await buffer(found?.body ?? Readable.from([]))).equals(piece));
  store.close();
});

async function startNode(t: TestContext, store: RealObjectStore, registry: RealRegistry, more = {}) {
  const directory = await tempDir(t);
  const secretFile = join(directory, 'secret');
  await writeFile(secretFile, 'a secret that all the nodes of this fleet share\n', { mode: 0o600 });
  const config = {
    upstreams: { 'docker.io': { url: registry.url } },
    fleet: store.config(secretFile),
    ...more,
  };
  return startRealMirror(t, directory, config, STORE_ENVIRONMENT);
}

test('a node dies and upstream is stopped: a new node with an empty disk serves the whole image to crane', {
  skip,
}, async (t) => {
  const directory = await tempDir(t);
  const [store, registry] = [await startObjectStore(t), await RealRegistry.start(t)];
  const image = await makeImage(directory);
  await pushImage(image, registry, 'library/app:1');
  const pull = async ({ port }: RealMirror, name: string) => {
    const target = join(directory, name);
    const reference = `127.0.0.1:${port}/docker.io/library/app:1`;
    await run(engine('crane'), ['pull', '--insecure', '--format', 'oci', reference, target]);
    // Below it stands a warning when the tag is stale.
    assert.ok((await run(engine('crane'), ['digest', '--insecure', reference])).startsWith(image.digest));
  };
  const a = await startNode(t, store, registry);
  await pull(a, 'a');
  await uploaded(a);
  await a.process.kill();
  await registry.stop();
  await pull(await startNode(t, store, registry), 'b');
  await pull(await startNode(t, store, registry, { sealed: true }), 'c');
});
