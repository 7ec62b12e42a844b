/** What leaves the object store of a fleet, and what does not. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { PREFIX, TestEviction } from '../../helpers/test-eviction.ts';

const HOUR_MS = 3_600_000;
/** A manifest and two blobs. */
const IMAGE_BYTES = 3_000;

/** Images whose last use was an hour after that of the one before. */
async function withImages(t: TestContext, count: number) {
  const fleet = await TestEviction.start(t);
  const images = [];
  for (let at = 0; at < count; at += 1) {
    images.push(await fleet.image(`image-${at}`));
    fleet.pass(HOUR_MS);
  }
  return { fleet, images };
}

test('what was not used for longest leaves, until the store is within its size', async (t) => {
  const { fleet, images } = await withImages(t, 10);
  const node = await fleet.node(4 * IMAGE_BYTES);
  await fleet.evict(node);
  assert.equal(fleet.bytes, 4 * IMAGE_BYTES);
  for (const [at, { manifest, blobs }] of images.entries())
    for (const digest of [manifest, ...blobs]) assert.equal(fleet.has(digest), at >= 6, `image ${at}`);
  assert.deepEqual(node.eviction.condition, {
    ...{ bytes: 12_000, objects: 12, leavingBytes: 0, maxBytes: 12_000 },
  });
});

test('nothing leaves a store that is within its size', async (t) => {
  const { fleet } = await withImages(t, 3);
  await fleet.evict(await fleet.node(3 * IMAGE_BYTES));
  assert.equal(fleet.bytes, 3 * IMAGE_BYTES);
});

test('what is chosen leaves after fifteen minutes, and not before', async (t) => {
  const { fleet } = await withImages(t, 2);
  const node = await fleet.node(IMAGE_BYTES);
  await node.look();
  assert.equal(node.eviction.condition?.leavingBytes, IMAGE_BYTES);
  fleet.pass(14 * 60_000);
  await node.look();
  assert.equal(fleet.bytes, 2 * IMAGE_BYTES);
  fleet.pass(60_000);
  await node.look();
  assert.equal(fleet.bytes, IMAGE_BYTES);
});

test('what is used while it is leaving stays, with all that it lists', async (t) => {
  const { fleet, images } = await withImages(t, 4);
  const [first, second] = images;
  assert.ok(first && second);
  const node = await fleet.node(2 * IMAGE_BYTES);
  await node.look();
  await fleet.coordinator.uses.use([first.manifest]); // a client has its blobs, and asks for the manifest alone
  await fleet.coordinator.uses.use(second.blobs.slice(0, 1));
  fleet.passUntilRemoved();
  await node.look();
  for (const digest of [first.manifest, ...first.blobs, ...second.blobs.slice(0, 1)])
    assert.ok(fleet.has(digest));
  assert.ok(!fleet.has(second.manifest));
  assert.deepEqual(fleet.incomplete(images), []);
});

test('a blob stays as long as a manifest that lists it, on whatever node that was used', async (t) => {
  const fleet = await TestEviction.start(t);
  const base = await fleet.content('base');
  fleet.pass(HOUR_MS);
  const cold = await fleet.image('cold', [base, await fleet.content('cold')]);
  fleet.pass(HOUR_MS);
  const hot = await fleet.image('hot', [base, await fleet.content('hot')]);
  fleet.pass(HOUR_MS);
  await fleet.coordinator.uses.use([hot.manifest]);
  await fleet.evict(await fleet.node(IMAGE_BYTES));
  assert.ok(!fleet.has(cold.manifest));
  for (const digest of [hot.manifest, ...hot.blobs]) assert.ok(fleet.has(digest));
});

test('an index leaves before its images, and they before their blobs; a use of it counts for all of them', async (t) => {
  const fleet = await TestEviction.start(t);
  const images = [await fleet.image('amd64'), await fleet.image('arm64')];
  fleet.pass(HOUR_MS);
  const index = await fleet.manifest(
    'index',
    images.map(({ manifest }) => manifest),
  );
  const other = await fleet.image('other');
  fleet.pass(HOUR_MS);
  await fleet.coordinator.uses.use([index]);
  const node = await fleet.node(fleet.bytes - 1_000);
  await fleet.evict(node);
  assert.ok(!fleet.has(other.manifest));
  assert.ok(fleet.has(index));
  fleet.pass(HOUR_MS);
  await fleet.coordinator.uses.use(images.flatMap(({ manifest, blobs }) => [manifest, ...blobs]));
  const small = await fleet.node(fleet.bytes - 3_000);
  await fleet.evict(small);
  assert.ok(!fleet.has(index), 'it lists what is used, and is not used itself');
  assert.ok(images.every(({ manifest }) => fleet.has(manifest)));
});

test('a manifest that is used in the moment of the decision keeps its blobs', async (t) => {
  const { fleet, images } = await withImages(t, 2);
  const [first] = images;
  assert.ok(first);
  const hurried = new MemoryCoordinator();
  Object.assign(hurried.uses, fleet.coordinator.uses, {
    take: async (digests: readonly Digest[]) => {
      await fleet.coordinator.uses.use([first.manifest]);
      return fleet.coordinator.uses.take(digests);
    },
  });
  const node = await fleet.node(IMAGE_BYTES, { coordinator: hurried });
  await node.look();
  fleet.passUntilRemoved();
  hurried.held.clear();
  await node.look();
  for (const digest of [first.manifest, ...first.blobs]) assert.ok(fleet.has(digest));
});

test('an image that is written while its blobs are leaving keeps them', async (t) => {
  const fleet = await TestEviction.start(t);
  const blob = await fleet.content('blob');
  const other = await fleet.content('other');
  fleet.pass(HOUR_MS);
  const node = await fleet.node(2);
  await node.look();
  fleet.pass(60_000);
  const image = await fleet.image('new', [blob]);
  fleet.passUntilRemoved();
  await node.look();
  assert.ok(fleet.has(blob) && fleet.has(image.manifest));
  assert.ok(!fleet.has(other));
  assert.equal(node.eviction.condition?.leavingBytes, 1_000, 'the manifest is chosen now, the blob no more');
  fleet.passUntilRemoved();
  await fleet.evict(node);
  assert.equal(fleet.bytes, 0);
});

test('the records of a manifest leave with it, and the tags that mean it; those that have moved stay', async (t) => {
  const { fleet, images } = await withImages(t, 2);
  const [first, second] = images;
  assert.ok(first && second);
  const node = await fleet.node(IMAGE_BYTES);
  await node.look();
  fleet.passUntilRemoved();
  await node.look();
  assert.deepEqual(fleet.names('_manifests/'), [
    `${PREFIX}repositories/${'a'.repeat(32)}/org/app/_manifests/${second.manifest}`,
  ]);
  assert.deepEqual(fleet.names('_tags/').length, 1);
});

test('a tag that moves while its old manifest is removed is kept', async (t) => {
  const { fleet, images } = await withImages(t, 2);
  const node = await fleet.node(IMAGE_BYTES);
  await node.look();
  fleet.passUntilRemoved();
  const [tag = ''] = fleet.names('_tags/image-0');
  fleet.bucket.script(({ operation, name }) => {
    // In the same moment.
    if (operation === 'delete' && name === tag)
      fleet.bucket.objects.set(tag, { bytes: Buffer.from('moved'), writtenAt: new Date() });
  });
  await node.look();
  assert.ok(!fleet.has(images[0]?.manifest ?? digestOf(Buffer.from(''))));
  assert.equal(fleet.bucket.objects.get(tag)?.bytes.toString(), 'moved');
});

test('records whose manifest has gone leave, too', async (t) => {
  const { fleet, images } = await withImages(t, 3);
  const [first] = images;
  assert.ok(first);
  for (const name of fleet.names(first.manifest.slice('sha256:'.length)))
    if (name.includes('/blobs/')) fleet.bucket.objects.delete(name);
  await fleet.evict(await fleet.node(2 * IMAGE_BYTES));
  assert.equal(fleet.names('_manifests/').length, 2);
  assert.equal(fleet.bytes, 2 * IMAGE_BYTES);
});

test('only names of our own form below the prefix are counted or removed', async (t) => {
  const { fleet } = await withImages(t, 1);
  const hex = digestOf(Buffer.from('x')).slice('sha256:'.length);
  const foreign = [
    `${PREFIX}blobs/somebody/else`,
    `${PREFIX}blobs/sha256/00/${hex}`,
    `${PREFIX}blobs/sha256/${hex.slice(0, 2)}/${hex}.bak`,
    `${PREFIX}repositories/README`,
    `${PREFIX}repositories/${'a'.repeat(32)}/UPPER/_tags/1`,
    `${PREFIX}repositories/${'a'.repeat(32)}/org/app/_other/1`,
    `${PREFIX}notes`,
    `other/blobs/sha256/${hex.slice(0, 2)}/${hex}`,
  ];
  for (const name of foreign)
    fleet.bucket.objects.set(name, { bytes: Buffer.alloc(10_000), writtenAt: new Date(0) });
  const node = await fleet.node(1_000);
  await fleet.evict(node);
  for (const name of foreign) assert.ok(fleet.bucket.objects.has(name), name);
  assert.equal(node.eviction.condition?.bytes, 1_000);
  const asked = fleet.bucket.requests.map(({ name }) => name).filter((name) => foreign.includes(name));
  assert.deepEqual(asked, []);
});

test('after the coordinator has lost everything, all counts as used now', async (t) => {
  const { fleet } = await withImages(t, 4);
  const node = await fleet.node(2 * IMAGE_BYTES);
  await node.look();
  fleet.coordinator.used.clear();
  fleet.passUntilRemoved();
  await node.look();
  assert.equal(fleet.bytes, 4 * IMAGE_BYTES);
});

test('a record that nobody of the fleet has signed keeps nothing, and is counted', async (t) => {
  const { fleet } = await withImages(t, 1);
  const blob = await fleet.content('blob');
  fleet.pass(HOUR_MS);
  const hot = await fleet.content('hot');
  const name = `repositories/${'a'.repeat(32)}/org/app/_manifests/${hot}`;
  const json = JSON.stringify({ mediaType: 'm', size: 1, lists: [[blob, 1]] });
  fleet.put(name, Buffer.from(`${'0'.repeat(64)}\n${json}`));
  const node = await fleet.node(1_000);
  await fleet.evict(node);
  assert.ok(!fleet.has(blob) && fleet.has(hot));
  const [refused] = (await node.node.metrics.fleetRecordsRefused.get()).values;
  assert.equal(refused?.value, 1, 'read once, and not at each look');
});

test('what a node that is sealed could not fetch again is not removed by it', async (t) => {
  const { fleet } = await withImages(t, 2);
  const node = await fleet.node(IMAGE_BYTES, { isSealed: () => true });
  await fleet.evict(node);
  assert.equal(fleet.bytes, 2 * IMAGE_BYTES);
});

test('of all nodes one looks in twenty minutes, and the others are told what it has found', async (t) => {
  const { fleet } = await withImages(t, 2);
  const [a, b] = [await fleet.node(2 * IMAGE_BYTES), await fleet.node(2 * IMAGE_BYTES)];
  await a.look();
  const lists = fleet.bucket.count('list');
  await b.look();
  await a.look();
  assert.equal(fleet.bucket.count('list'), lists);
  assert.deepEqual(b.eviction.condition, a.eviction.condition);
  assert.equal(b.eviction.condition?.bytes, 2 * IMAGE_BYTES);
});

test('a record is read once, however often the store is looked through', async (t) => {
  const { fleet } = await withImages(t, 3);
  const node = await fleet.node(3 * IMAGE_BYTES);
  await node.look();
  const gets = fleet.bucket.count('get');
  assert.equal(gets, 6);
  fleet.pass(HOUR_MS);
  await node.look();
  assert.equal(fleet.bucket.count('get'), gets);
});

test('while a record cannot be read, or the coordinator does not answer, nothing is removed', async (t) => {
  const { fleet } = await withImages(t, 2);
  const node = await fleet.node(IMAGE_BYTES);
  await node.look();
  fleet.passUntilRemoved();
  fleet.bucket.script(({ operation, name }, reply) => {
    if (operation === 'list' && name.includes('repositories'))
      reply.fails = { status: 503, code: 'SlowDown' };
  });
  await node.look();
  assert.equal(fleet.bytes, 2 * IMAGE_BYTES);
  fleet.bucket.script(() => undefined);
  const away = new MemoryCoordinator();
  Object.assign(away.uses, {
    look: (digests: readonly Digest[]) => fleet.coordinator.uses.look(digests),
    take: () => new Promise(() => undefined),
  });
  const other = await fleet.node(IMAGE_BYTES, { coordinator: away });
  const looking = other.look();
  while (other.node.clock.nextWakeMs > 2_000 || fleet.bucket.count('list', 'blobs/') < 2)
    await setImmediate();
  for (let at = 0; at < 200; at += 1) await setImmediate();
  other.node.clock.advance(2_000);
  await looking;
  assert.equal(fleet.bytes, 2 * IMAGE_BYTES);
});

test('a store that refuses removals is told of, and what was chosen is used as before', async (t) => {
  const { fleet, images } = await withImages(t, 2);
  const node = await fleet.node(IMAGE_BYTES);
  await node.look();
  fleet.passUntilRemoved();
  fleet.bucket.script(({ operation }, reply) => {
    if (operation === 'delete') reply.fails = { status: 403, code: 'AccessDenied' };
  });
  await node.look();
  assert.equal(fleet.bytes, 2 * IMAGE_BYTES);
  assert.equal(await fleet.coordinator.uses.revive(images[0]?.manifest ?? digestOf(Buffer.from(''))), true);
});

test('an evictor that is frozen after its decision and woken late removes nothing that was used meanwhile', async (t) => {
  const { fleet, images } = await withImages(t, 2);
  const [victim] = images;
  assert.ok(victim);
  const frozenCoordinator = new MemoryCoordinator();
  const decided = Promise.withResolvers<void>();
  const woken = Promise.withResolvers<void>();
  const { uses } = fleet.coordinator;
  Object.assign(frozenCoordinator.uses, fleet.coordinator.uses, {
    take: async (digests: readonly Digest[]) => {
      const taken = await uses.take(digests);
      decided.resolve();
      await woken.promise; // the answer is on its way while the process stands still
      return taken;
    },
  });
  const frozen = await fleet.node(IMAGE_BYTES, { coordinator: frozenCoordinator });
  await frozen.look();
  fleet.passUntilRemoved();
  frozenCoordinator.held.clear();
  const looking = frozen.look();
  await decided.promise;

  const other = await fleet.node(IMAGE_BYTES);
  fleet.pass(HOUR_MS);
  await other.look(); // finds that what the frozen one has decided on is still there, and chooses it again
  fleet.pass(HOUR_MS);
  assert.equal(await fleet.coordinator.uses.revive(victim.manifest), true);
  await fleet.coordinator.uses.use(victim.blobs);
  const kept = [victim.manifest, ...victim.blobs];

  woken.resolve();
  await looking;
  assert.ok(kept.every((digest) => fleet.has(digest)));
  assert.ok(fleet.bucket.count('delete') > 0, 'it has tried');
});

test('two that evict at the same time remove what one would have removed', async (t) => {
  const { fleet, images } = await withImages(t, 20);
  const [a, b] = [await fleet.node(10 * IMAGE_BYTES), await fleet.node(10 * IMAGE_BYTES)];
  const both = async () => {
    const first = a.look();
    fleet.coordinator.held.clear();
    await Promise.all([first, b.look()]);
  };
  await both();
  fleet.passUntilRemoved();
  await both();
  assert.equal(fleet.bytes, 10 * IMAGE_BYTES);
  for (const [at, { manifest }] of images.entries()) assert.equal(fleet.has(manifest), at >= 10);
});
