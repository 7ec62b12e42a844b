/** What each driver of a coordinator must do with last uses, and what the one in memory does for tests. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { type CoordinatedUses, USE_GROUPS, useGroup } from '../../src/fleet/coordinator/coordinator.ts';
import { type Digest, digestOf } from '../../src/oci/digest.ts';

export interface TestedUses {
  uses: CoordinatedUses;
  /** Lets time pass for what is kept. */
  pass: (ms: number) => Promise<void>;
}

const MINUTE_MS = 60_000;

let count = 0;
function digests(howMany: number): Digest[] {
  count += 1;
  return Array.from({ length: howMany }, (_, at) => digestOf(Buffer.from(`${count} ${at}`)));
}

async function usedAt({ uses }: TestedUses, digest: Digest): Promise<number> {
  return (await uses.look([digest])).uses[0]?.usedAt ?? Number.NaN;
}

/** Chooses a digest and lets it leave. */
async function leaving(tested: TestedUses): Promise<Digest> {
  const [digest] = digests(1) as [Digest];
  await tested.uses.use([digest]);
  const victim = { digest, usedAt: await usedAt(tested, digest) };
  assert.deepEqual(await tested.uses.mark([victim]), [digest]);
  return digest;
}

async function removing(tested: TestedUses): Promise<Digest> {
  const digest = await leaving(tested);
  await tested.pass(15 * MINUTE_MS);
  assert.deepEqual(await tested.uses.take([digest]), [digest]);
  return digest;
}

const RULES: Record<string, (tested: TestedUses) => Promise<void>> = {
  'what has no record counts as used now, and from then on as used then': async (tested) => {
    const many = digests(300);
    const first = await tested.uses.look(many);
    assert.equal(first.uses.length, 300);
    assert.ok(first.uses.every((use) => use !== undefined && first.now - use.usedAt < MINUTE_MS));
    await tested.pass(MINUTE_MS);
    const second = await tested.uses.look(many);
    assert.ok(second.uses.every((use) => use !== undefined && second.now - use.usedAt >= MINUTE_MS));
  },
  'the last use counts, of many digests at a time': async (tested) => {
    const many = digests(300);
    await tested.uses.look(many);
    await tested.pass(MINUTE_MS);
    assert.deepEqual(await tested.uses.use(many.slice(0, 100)), []);
    const { uses, now } = await tested.uses.look(many);
    for (const [at, use] of uses.entries())
      assert.equal(use !== undefined && now - use.usedAt < MINUTE_MS, at < 100, String(at));
  },
  'what was used since it was looked at is not marked': async (tested) => {
    const [a, b] = digests(2) as [Digest, Digest];
    await tested.uses.look([a, b]);
    await tested.pass(MINUTE_MS);
    const [first, second] = (await tested.uses.look([a, b])).uses;
    await tested.uses.use([a]);
    const victims = [
      { digest: a, usedAt: first?.usedAt ?? 0 },
      { digest: b, usedAt: second?.usedAt ?? 0 },
    ];
    assert.deepEqual(await tested.uses.mark(victims), [b]);
    const [used, marked] = (await tested.uses.look([a, b])).uses;
    assert.equal(used?.leavingSince, undefined);
    assert.ok((marked?.leavingSince ?? 0) > 0);
    assert.equal(marked?.usedAt, second?.usedAt);
  },
  'what is marked already is not marked again': async (tested) => {
    const digest = await leaving(tested);
    const { uses } = await tested.uses.look([digest]);
    assert.deepEqual(await tested.uses.mark([{ digest, usedAt: uses[0]?.usedAt ?? 0 }]), []);
  },
  'what is leaving is taken after fifteen minutes, and not before, and once': async (tested) => {
    const digest = await leaving(tested);
    await tested.pass(14 * MINUTE_MS);
    assert.deepEqual(await tested.uses.take([digest]), []);
    await tested.pass(MINUTE_MS);
    const never = digests(1);
    assert.deepEqual(await tested.uses.take([...never, digest]), [digest]);
    assert.deepEqual(await tested.uses.take([digest]), []);
  },
  'a use or a write takes the mark off': async (tested) => {
    const [used, written] = [await leaving(tested), await leaving(tested)];
    await tested.pass(15 * MINUTE_MS);
    assert.deepEqual(await tested.uses.use([used]), []);
    assert.equal(await tested.uses.revive(written), true);
    assert.deepEqual(await tested.uses.take([used, written]), []);
  },
  'whoever uses what is being removed, or is gone, is told; a look leaves it out': async (tested) => {
    const digest = await removing(tested);
    assert.deepEqual(await tested.uses.use([...digests(1), digest]), [digest]);
    assert.deepEqual((await tested.uses.look([digest])).uses, [undefined]);
    await tested.uses.removed([digest]);
    assert.deepEqual(await tested.uses.use([digest]), [digest]);
    assert.deepEqual(await tested.uses.use([digest]), [digest], 'until it is written again');
  },
  'what is being removed is not written until that is over': async (tested) => {
    const digest = await removing(tested);
    assert.equal(await tested.uses.revive(digest), false);
    await tested.uses.removed([digest]);
    assert.equal(await tested.uses.revive(digest), true);
    assert.deepEqual(await tested.uses.use([digest]), []);
  },
  'a removal that nobody has ended is over after fifteen minutes': async (tested) => {
    const [written, listed] = [await removing(tested), await removing(tested)];
    await tested.pass(15 * MINUTE_MS);
    assert.equal(await tested.uses.revive(written), true);
    assert.ok((await usedAt(tested, listed)) > 0, 'it is in the store, so that it counts as used now');
    assert.deepEqual(await tested.uses.use([listed]), []);
  },
  'what is over is said of removals only': async (tested) => {
    const [digest] = digests(1) as [Digest];
    await tested.uses.use([digest]);
    await tested.uses.removed([digest]);
    assert.deepEqual(await tested.uses.use([digest]), []);
  },
};

export async function assertKeepsUses(t: TestContext, tested: TestedUses): Promise<void> {
  for (const [name, rule] of Object.entries(RULES)) await t.test(name, () => rule(tested));
  assert.equal(new Set(digests(5_000).map(useGroup)).size, USE_GROUPS);
}
