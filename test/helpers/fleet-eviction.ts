/** Images in a fleet whose object store holds half of them. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { contentName } from '../../src/fleet/objects/names.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { type FleetNode, TestFleet } from './fleet-nodes.ts';
import type { TestImage } from './images.ts';
import { startCoordinator } from './real-coordinator.ts';
import { runMillpond } from './run-millpond.ts';

const PREFIX = 'millpond/';
const LAYERS = [2_000, 2_000, 2_000];
const HOUR_MS = 3_600_000;
const LEAVING_MS = 15 * 60_000;
const AT_A_TIME = 8;
const TURNS = 1_000;

interface Tagged extends TestImage {
  tag: string;
}

interface Content {
  bytes: number;
  objects: number;
  leavingBytes: number;
}

/** Every tenth has two platforms, and so an index. */
function addImages({ upstream }: TestFleet, count: number): Tagged[] {
  return Array.from({ length: count }, (_, at) => {
    const platforms = at % 10 === 0 ? ['amd64', 'arm64'] : ['amd64'];
    const options = { layers: LAYERS, platforms, seed: `image ${at}` };
    return { ...upstream.addImage('org/app', `${at}`, options), tag: `${at}` };
  });
}

function digestsOf({ top, manifests, blobs }: TestImage): Digest[] {
  return [
    ...new Set([top.digest, ...manifests.map(({ digest }) => digest), ...blobs.map((one) => digestOf(one))]),
  ];
}

function bytesOf(image: TestImage): number {
  const all = new Map([image.top, ...image.manifests].map(({ digest, bytes }) => [digest, bytes]));
  for (const blob of image.blobs) all.set(digestOf(blob), blob);
  return [...all.values()].reduce((sum, { length }) => sum + length, 0);
}

async function pull(node: FleetNode, { tag, top, manifests, blobs }: Tagged): Promise<void> {
  const reply = await node.get(`/v2/org/app/manifests/${tag}`);
  assert.ok(reply.body.equals(top.bytes), `${reply.status}`);
  for (const { digest, bytes } of manifests)
    assert.ok((await node.get(`/v2/org/app/manifests/${digest}`)).body.equals(bytes));
  for (const blob of blobs)
    assert.ok((await node.get(`/v2/org/app/blobs/${digestOf(blob)}`)).body.equals(blob));
}

async function forEach<T>(items: readonly T[], step: (item: T) => Promise<unknown>): Promise<void> {
  const left = items.values();
  const lane = async () => {
    for (const item of left) await step(item);
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, lane));
}

async function contentOf({ operationsUrl }: FleetNode): Promise<Content | undefined> {
  const reply = await fetch(`${operationsUrl}/api/status`);
  return ((await reply.json()) as { fleet: { objects: { content?: Content } } }).fleet.objects.content;
}

/** Lets a node look through the store, once the last look is long enough ago. */
async function look(node: FleetNode, isDone: (content: Content) => boolean): Promise<Content> {
  node.clock.advance(60_000);
  for (;;) {
    const content = await contentOf(node);
    if (content !== undefined && isDone(content)) return content;
    const failed = node.log.find(({ msg }) => String(msg).includes('could not be looked through'));
    assert.equal(failed, undefined, JSON.stringify(failed));
  }
}

/** Gives what a node asks its engines for the time to be answered. What waits for the clock goes on waiting. */
async function settled({ clock }: FleetNode): Promise<void> {
  for (let turns = 0; clock.isAwaited && turns < TURNS; turns += 1) await setImmediate();
}

/**
 * Pulls images, lets the store of the fleet shrink to half of them, and pulls all of them again.
 *
 * Asserts that what is used by hits on the local disk of one node stays, also if only its manifest is asked for, and that
 * no image is left incomplete.
 */
export async function evictHalf(t: TestContext, count: number): Promise<void> {
  const fleet = await TestFleet.start(t);
  const coordinator = await startCoordinator(t);
  const images = addImages(fleet, count);
  const total = images.reduce((sum, image) => sum + bytesOf(image), 0);
  const maxBytes = Math.ceil(total / 2 / 1024) * 1024;
  const start = (more = {}) => {
    const { objects } = fleet.bucket.config('') as { objects: Record<string, unknown> };
    const moreOfFleet = {
      objects: { ...objects, maxSize: `${maxBytes / 1024}KiB` },
      ...{ coordinator: { url: coordinator.url }, listen: '127.0.0.1:0' },
    };
    return fleet.node({ moreOfFleet, ...more });
  };
  // A sealed node evicts nothing, so that it is always the other one that does.
  const [a, b] = [await start(), await start({ sealed: true })];
  await forEach(images, (image) => pull(a, image));
  await a.uploaded();
  const stored = () => new Set(fleet.bucket.objects.keys());
  const has = (names: ReadonlySet<string>, digest: Digest) => names.has(PREFIX + contentName(digest));
  const isWhole = (names: ReadonlySet<string>, image: TestImage) =>
    digestsOf(image).every((one) => has(names, one));
  assert.ok(images.every((image) => isWhole(stored(), image)));
  const isTagged = ({ tag }: Tagged) =>
    [...fleet.bucket.objects.keys()].some((name) => name.endsWith(`/org/app/_tags/${tag}`));
  const objects = images.flatMap(digestsOf).length;
  assert.ok(objects >= 5 * count);

  /** Lets the other node tell what it has used. */
  const told = async (digests: readonly Digest[]) => {
    const before = new Map<Digest, string | null>();
    for (const digest of digests) before.set(digest, await coordinator.keptOfUse(digest));
    return async () => {
      b.clock.advance(10_000); // so often uses are written down
      for (const digest of digests)
        while ((await coordinator.keptOfUse(digest)) === before.get(digest)) {
          b.clock.advance(1_000);
          await settled(b);
        }
    };
  };

  await coordinator.pass(HOUR_MS);
  const [hot, hotByManifest, late] = [0, 1, 2].map((part) =>
    images.filter((_, at) => at % 10 === part && at < count),
  ) as [Tagged[], Tagged[], Tagged[]];
  await forEach([...hot, ...hotByManifest, ...late], (image) => pull(b, image));
  await b.uploaded();
  await coordinator.pass(HOUR_MS);
  const asked = fleet.bucket.requests.length;
  const tellHot = await told([...hot.flatMap(digestsOf), ...hotByManifest.flatMap(digestsOf)]);
  await forEach(hot, (image) => pull(b, image));
  await forEach(hotByManifest, ({ tag }) => b.head(`/v2/org/app/manifests/${tag}`));
  await tellHot();
  assert.equal(fleet.bucket.requests.length, asked, 'all were hits on the local disk');

  await look(a, ({ leavingBytes }) => leavingBytes > 0);
  await coordinator.pass(LEAVING_MS);
  const tellLate = await told(late.flatMap(digestsOf));
  await forEach(late, (image) => pull(b, image)); // in the last moment
  await tellLate();
  const { bytes } = await look(a, (content) => content.bytes < total);
  t.diagnostic(`${objects} objects of ${total} bytes: ${bytes} of at most ${maxBytes} bytes are left`);
  const { stdout } = await runMillpond(a, ['status']);
  assert.match(stdout, /^objects {4}\S+ \S+ of \S+ \S+ in the object store, \d+ objects, .* leaving$/m);
  const left = stored();
  for (const image of [...hot, ...hotByManifest, ...late]) assert.ok(isWhole(left, image), image.tag);
  const manifests = images.flatMap((image) => (has(left, image.top.digest) ? [image] : []));
  assert.ok(
    manifests.every((image) => isWhole(left, image)),
    'no incomplete image is left',
  );
  assert.ok(manifests.length < count);
  const records = [...left].filter((name) => name.includes('/org/app/_tags/'));
  assert.equal(records.length, manifests.length, 'no tag is left without its manifest');

  // A node that has on its disk what has left brings it back when it is used there.
  const again = images.find((image) => !has(left, image.top.digest));
  assert.ok(again);
  await pull(a, again);
  a.clock.advance(10_000);
  while (!isWhole(stored(), again) || !isTagged(again)) {
    a.clock.advance(1_000);
    await settled(a);
  }

  // Behind our back.
  for (const { blobs, top } of hot)
    for (const digest of [top.digest, ...blobs.map((blob) => digestOf(blob))])
      fleet.bucket.objects.delete(PREFIX + contentName(digest));
  const c = await start();
  await forEach(images, (image) => pull(c, image));
  await c.uploaded();
  assert.ok(
    images.every((image) => isWhole(stored(), image)),
    'what is used again is in the store again',
  );
}
