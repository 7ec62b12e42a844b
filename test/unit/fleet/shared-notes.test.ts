/** What one node is told by upstream, all know. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { SharedNotes } from '../../../src/fleet/nodes/shared-notes.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import type { Repository, Tag } from '../../../src/oci/reference.ts';
import { MemoryCoordinator } from '../../helpers/memory-coordinator.ts';
import { testNode } from '../../helpers/test-node.ts';

const REPOSITORY = { upstream: 'a'.repeat(32), repository: 'org/app' as Repository };
const OTHER = { upstream: 'a'.repeat(32), repository: 'org/other' as Repository };
const DIGEST = digestOf(Buffer.from('manifest'));
const MEANING = { digest: DIGEST, mediaType: 'm', size: 5 };
const TAG = '1' as Tag;

async function twoNodes(t: TestContext, secret?: string) {
  const coordinator = new MemoryCoordinator();
  const [a, b] = [
    await testNode(t, 'a', { coordinator }),
    await testNode(t, 'b', { coordinator, ...(secret === undefined ? {} : { secret }) }),
  ];
  return { coordinator, a: new SharedNotes(a), b: new SharedNotes(b), clockB: b.clock };
}

test('what a manifest allows on one node is allowed on another, for the same repository', async (t) => {
  const { a, b } = await twoNodes(t);
  await a.allow(REPOSITORY, new Map([[DIGEST, 7]]));
  assert.equal(await b.allowed(REPOSITORY, DIGEST), 7);
  assert.equal(await b.allowed(OTHER, DIGEST), undefined);
  assert.equal(await b.allowed(REPOSITORY, digestOf(Buffer.from('another'))), undefined);
});

test('what nobody of the fleet has signed allows nothing, nor under another name', async (t) => {
  const { coordinator, a, b } = await twoNodes(t, 'quite another secret, and long enough, too');
  await a.allow(REPOSITORY, new Map([[DIGEST, 7]]));
  await a.tell(REPOSITORY, TAG, '', MEANING);
  assert.equal(await b.allowed(REPOSITORY, DIGEST), undefined);
  assert.equal(await b.tag(REPOSITORY, TAG, ''), undefined);
  for (const [name, noted] of [...coordinator.kept])
    coordinator.kept.set(name.replace('org/app', 'org/other'), noted);
  assert.equal(await a.allowed(OTHER, DIGEST), undefined);
  assert.equal(await a.tag(OTHER, TAG, ''), undefined);
});

test('a tag that another node has asked of just now is not asked of again, and later it is', async (t) => {
  const { coordinator, a, b } = await twoNodes(t);
  let asked = 0;
  const ask = async () => {
    asked += 1;
    return MEANING;
  };
  assert.deepEqual(await a.revalidate(REPOSITORY, TAG, '', ask), MEANING);
  assert.equal((await b.revalidate(REPOSITORY, TAG, '', ask))?.digest, DIGEST);
  assert.equal(asked, 1);
  coordinator.now += 2_001;
  await b.revalidate(REPOSITORY, TAG, '', ask);
  assert.equal(asked, 2);
});

test('who asks while another node does waits for its answer; if that node is refused, it asks itself', async (t) => {
  for (const isRefused of [false, true]) {
    const { a, b, clockB } = await twoNodes(t);
    const answer = Promise.withResolvers<typeof MEANING>();
    const first = a.revalidate(REPOSITORY, TAG, '', () => answer.promise);
    let asked = 0;
    const second = b.revalidate(REPOSITORY, TAG, '', async () => {
      asked += 1;
      return MEANING;
    });
    await clockB.waited();
    if (isRefused) answer.reject(new Error('refused'));
    else answer.resolve(MEANING);
    await first.catch(() => undefined);
    await setImmediate();
    clockB.advance(50);
    assert.equal((await second)?.digest, DIGEST);
    assert.equal(asked, isRefused ? 1 : 0);
  }
});

test('a coordinator that answers nothing holds a reply up for a tenth of a second', async (t) => {
  const { coordinator } = await twoNodes(t);
  coordinator.notes.keep = () => new Promise(() => undefined);
  const node = await testNode(t, 'c', { coordinator });
  const telling = new SharedNotes(node).tell(REPOSITORY, TAG, '', MEANING);
  while (node.clock.nextWakeMs > 100) await setImmediate();
  node.clock.advance(100);
  await telling;
});

test('what upstream has said of a tag is told once, and again when it is another thing or later', async (t) => {
  const { coordinator, b, clockB } = await twoNodes(t);
  const told = () => coordinator.commands.filter((command) => command === 'keep').length;
  await b.revalidate(REPOSITORY, TAG, '', async () => MEANING);
  await b.tell(REPOSITORY, TAG, '', MEANING);
  assert.equal(told(), 1);
  await b.tell(REPOSITORY, TAG, '', { ...MEANING, size: 6 });
  assert.equal(told(), 2);
  clockB.advance(2_000);
  await b.tell(REPOSITORY, TAG, '', { ...MEANING, size: 6 });
  assert.equal(told(), 3);
});
