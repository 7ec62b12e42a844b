/** What every driver of a coordinator must do, whatever is behind it. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { Coordinator } from '../../src/fleet/coordinator/coordinator.ts';

export interface RuledCoordinator {
  coordinator: Coordinator;
  /** Lets time pass, by the coordinator's clock; milliseconds. */
  pass: (ms: number) => Promise<void>;
}

/** Longer than anything in a rule takes. */
const LONG_MS = 60_000;
const SHORT_MS = 50;

type Rule = (ruled: RuledCoordinator) => Promise<void>;

export const LEASE_RULES: Record<string, Rule> = {
  'one has a lease, and all others are told whose it is and what that one has reached': async ({
    coordinator: { leases },
  }) => {
    const first = await leases.claim('aa:one', 'a\nsigned', { forMs: LONG_MS, reached: 7 });
    assert.equal(first.lease.holder, 'a\nsigned');
    const again = await leases.claim('aa:one', 'a\nsigned', { forMs: LONG_MS, reached: 8 });
    assert.deepEqual(again.lease, { ...first.lease, reached: 8 }, 'a second claim changes no number');
    assert.deepEqual((await leases.claim('aa:one', 'b', { forMs: LONG_MS })).lease, again.lease);
  },
  'another lease is taken with it, if that is free': async ({ coordinator: { leases } }) => {
    const both = await leases.claim('ab:one', 'a', { forMs: LONG_MS, also: 'ab:two' });
    assert.equal(both.hasBoth, true);
    const two = await leases.claim('ab:two', 'b', { forMs: LONG_MS });
    assert.deepEqual(two.lease, both.lease, 'under the same number');
    const third = await leases.claim('ab:three', 'b', { forMs: LONG_MS, also: 'ab:two' });
    assert.equal(third.lease.holder, 'b');
    assert.equal(third.hasBoth, false);
    const refused = await leases.claim('ab:one', 'b', { forMs: LONG_MS, also: 'ab:four' });
    assert.equal(refused.hasBoth, false);
    assert.equal((await leases.claim('ab:four', 'c', { forMs: LONG_MS })).lease.holder, 'c');
  },
  'who finds a holder dead takes over what it has, and only from that one; numbers grow': async ({
    coordinator: { leases },
  }) => {
    const { lease } = await leases.claim('ac:one', 'a', { forMs: LONG_MS, also: 'ac:two' });
    const instead = lease.number;
    const taken = await leases.claim('ac:one', 'b', { forMs: LONG_MS, instead, also: 'ac:two' });
    assert.equal(taken.lease.holder, 'b');
    assert.ok(taken.lease.number > instead && taken.hasBoth);
    const late = await leases.claim('ac:one', 'c', { forMs: LONG_MS, instead });
    assert.deepEqual(late.lease, taken.lease);
  },
  'of those who find it dead the furthest along wins, until the winner renews': async ({
    coordinator: { leases },
  }) => {
    const { number: instead } = (await leases.claim('ad:one', 'a', { forMs: LONG_MS })).lease;
    const claim = async (holder: string, reached: number) =>
      (await leases.claim('ad:one', holder, { forMs: LONG_MS, instead, reached })).lease;
    assert.equal((await claim('b', 100)).holder, 'b');
    assert.equal((await claim('c', 100)).holder, 'b');
    assert.equal((await claim('d', 50)).holder, 'b');
    const further = await claim('e', 101);
    assert.equal(further.holder, 'e');
    assert.equal((await claim('b', 100)).holder, 'e');
    assert.deepEqual(await leases.renew(new Map([['ad:one', further]]), LONG_MS), []);
    assert.equal((await claim('b', 200)).holder, 'e');
  },
  'a lease that is not renewed runs out': async ({ coordinator: { leases }, pass }) => {
    await leases.claim('ae:one', 'a', { forMs: SHORT_MS });
    await pass(SHORT_MS + 1);
    assert.equal((await leases.claim('ae:one', 'b', { forMs: LONG_MS })).lease.holder, 'b');
  },
  'a renewed lease lasts from then on, and tells what was reached': async ({
    coordinator: { leases },
    pass,
  }) => {
    const { lease } = await leases.claim('af:one', 'a', { forMs: LONG_MS });
    const other = await leases.claim('b0:two', 'a', { forMs: LONG_MS });
    const renewed = new Map([
      ['af:one', { ...lease, reached: 5 }],
      ['b0:two', { ...other.lease, reached: 6 }],
    ]);
    assert.deepEqual(await leases.renew(renewed, LONG_MS), []);
    assert.deepEqual((await leases.claim('af:one', 'b', { forMs: LONG_MS })).lease, { ...lease, reached: 5 });
    assert.equal((await leases.claim('b0:two', 'b', { forMs: LONG_MS })).lease.reached, 6);
    assert.deepEqual(await leases.renew(new Map([['af:one', lease]]), SHORT_MS), []);
    await pass(SHORT_MS + 1);
    assert.equal((await leases.claim('af:one', 'b', { forMs: LONG_MS })).lease.holder, 'b');
  },
  'what is said late of a lease changes nothing for the next holder': async ({ coordinator: { leases } }) => {
    const { lease } = await leases.claim('b1:one', 'a', { forMs: LONG_MS });
    await leases.release(new Map([['b1:one', lease.number]]));
    const next = (await leases.claim('b1:one', 'a', { forMs: LONG_MS })).lease;
    assert.ok(next.number > lease.number, 'a new number, although the holder is the same');
    await leases.release(new Map([['b1:one', lease.number]]));
    assert.deepEqual(await leases.renew(new Map([['b1:one', lease]]), LONG_MS), ['b1:one']);
    const late = await leases.claim('b1:one', 'b', { forMs: LONG_MS, instead: lease.number });
    assert.deepEqual(late.lease, next);
    await leases.release(new Map([['b1:one', next.number]]));
    assert.equal((await leases.claim('b1:one', 'b', { forMs: LONG_MS })).lease.holder, 'b');
    assert.deepEqual(await leases.renew(new Map([['b1:none', lease]]), LONG_MS), ['b1:none']);
  },
};

export const NOTE_RULES: Record<string, Rule> = {
  'a note is found as it was kept, in its group and under its name': async ({ coordinator: { notes } }) => {
    const texts = new Map([
      ['x', 'one 1\ntwo'],
      ['', 'nameless'],
    ]);
    await notes.keep('group', texts, LONG_MS);
    for (const [name, text] of texts) assert.equal((await notes.find('group', name))?.text, text);
    assert.equal(await notes.find('group', 'y'), undefined);
    assert.equal(await notes.find('other', 'x'), undefined);
    await notes.keep('group', new Map([['x', 'three']]), LONG_MS);
    assert.equal((await notes.find('group', 'x'))?.text, 'three');
    assert.equal((await notes.find('group', ''))?.text, 'nameless');
  },
  'a note tells how long ago it was kept': async ({ coordinator: { notes }, pass }) => {
    await notes.keep('aged', new Map([['x', 'old']]), LONG_MS);
    await pass(SHORT_MS);
    await notes.keep('aged', new Map([['y', 'new']]), LONG_MS);
    const ages = [await notes.find('aged', 'x'), await notes.find('aged', 'y')].map(
      (note) => note?.ageMs ?? -1,
    );
    const [old = 0, young = 0] = ages;
    assert.ok(young >= 0 && old - young >= SHORT_MS - 1 && old < LONG_MS, String(ages));
  },
  'all of a group runs out together, as was said last': async ({ coordinator: { notes }, pass }) => {
    await notes.keep('short', new Map([['x', 'gone']]), LONG_MS);
    await notes.keep('short', new Map([['y', 'gone']]), SHORT_MS);
    await pass(SHORT_MS + 1);
    for (const name of ['x', 'y']) assert.equal(await notes.find('short', name), undefined);
  },
};

export const MEMBER_RULES: Record<string, Rule> = {
  'who has said something is a member, as it last said, until it says nothing for a while': async ({
    coordinator: { members },
    pass,
  }) => {
    await members.beat('a', 'first', LONG_MS);
    await members.beat('b', 'other', LONG_MS);
    const both = await members.beat('a', 'second', LONG_MS);
    assert.deepEqual(both.members.toSorted(), ['other', 'second']);
    await pass(SHORT_MS);
    const left = await members.beat('a', 'third', SHORT_MS);
    assert.deepEqual(left.members, ['third']);
    assert.ok(left.now >= both.now + SHORT_MS - 1, 'the time is the coordinator’s, and passes');
  },
};

/** Each rule gets a coordinator with nothing in it. */
export async function assertKeepsCoordinatorRules(
  t: TestContext,
  open: (t: TestContext) => Promise<RuledCoordinator>,
): Promise<void> {
  for (const [name, rule] of Object.entries({ ...LEASE_RULES, ...NOTE_RULES, ...MEMBER_RULES }))
    await t.test(name, async (t) => rule(await open(t)));
}
