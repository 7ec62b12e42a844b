import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRepository } from '../../../src/oci/reference.ts';
import { Seal, SealableUpstream } from '../../../src/upstream/client/seal.ts';
import type { FetchedTags, Upstream } from '../../../src/upstream/upstream.ts';
import { CONTEXT } from '../../helpers/request-context.ts';

const REPOSITORY = parseRepository('org/app') ?? assert.fail();

/** Two upstreams under one seal. Creating a client takes until `ready` resolves, and fails for `broken`. */
function setUp({ ready, broken }: { ready?: Promise<void>; broken?: string } = {}) {
  const open = new Set<Upstream>();
  let created = 0;
  const upstreams = ['docker.io', 'quay.io'].map(
    (name) =>
      new SealableUpstream(name, async () => {
        await ready;
        if (name === broken) throw new Error('its ca is gone');
        created += 1;
        const client = {
          fetchTags: async (): Promise<FetchedTags> => ({ body: Buffer.from(name) }),
          close: async () => void open.delete(client),
        } as unknown as Upstream;
        open.add(client);
        return client;
      }),
  );
  const ask = () =>
    Promise.allSettled(upstreams.map((upstream) => upstream.fetchTags(CONTEXT, REPOSITORY, '')));
  return { seal: new Seal(upstreams), upstreams, open, created: () => created, ask };
}

function codes(outcomes: PromiseSettledResult<unknown>[]): string[] {
  return outcomes.map((outcome) =>
    outcome.status === 'fulfilled' ? 'answered' : (outcome.reason as { code: string }).code,
  );
}

test('a seal starts applied: no upstream is asked until it is lifted, and none after it is applied again', async () => {
  const { seal, open, ask } = setUp();
  assert.equal(seal.isApplied, true);
  assert.deepEqual(codes(await ask()), ['sealed', 'sealed']);
  await seal.lift();
  assert.equal(seal.isApplied, false);
  assert.deepEqual(codes(await ask()), ['answered', 'answered']);
  await seal.apply();
  assert.equal(seal.isApplied, true);
  assert.deepEqual(codes(await ask()), ['sealed', 'sealed']);
  assert.equal(open.size, 0);
});

test('a seal that is lifted twice at once opens each upstream once, and applying it closes all', async () => {
  const ready = Promise.withResolvers<void>();
  const { seal, open, created } = setUp({ ready: ready.promise });
  const lifts = [seal.lift(), seal.lift()];
  ready.resolve();
  await Promise.all(lifts);
  assert.equal(created(), 2);
  await seal.apply();
  assert.equal(open.size, 0);
});

test('a seal that is applied while it is being lifted ends applied, with nothing open', async () => {
  const ready = Promise.withResolvers<void>();
  const { seal, open, ask } = setUp({ ready: ready.promise });
  const changes = [seal.lift(), seal.apply()];
  ready.resolve();
  await Promise.all(changes);
  assert.equal(seal.isApplied, true);
  assert.equal(open.size, 0);
  assert.deepEqual(codes(await ask()), ['sealed', 'sealed']);
});

test('a seal that cannot be lifted for one upstream stays applied for all', async () => {
  const { seal, open, ask } = setUp({ broken: 'quay.io' });
  await assert.rejects(seal.lift(), /its ca is gone/);
  assert.equal(seal.isApplied, true);
  assert.deepEqual(codes(await ask()), ['sealed', 'sealed']);
  assert.equal(open.size, 0);
});

test('an upstream that cannot be unsealed replaces none: those of before go on, and what was opened for it is closed', async () => {
  const { seal, open, ask } = setUp();
  await seal.lift();
  const bad = setUp({ broken: 'quay.io' });
  await assert.rejects(seal.replace(bad.upstreams), /its ca is gone/);
  assert.equal(bad.open.size, 0);
  assert.deepEqual(codes(await ask()), ['answered', 'answered']);
  await seal.apply();
  assert.equal(open.size, 0);
});

test('upstreams that were replaced go on for whoever still pulls from them, until the seal is applied', async () => {
  const { seal, open, ask } = setUp();
  await seal.lift();
  const next = setUp();
  await seal.replace(next.upstreams);
  assert.deepEqual(codes(await ask()), ['answered', 'answered']);
  assert.deepEqual(codes(await next.ask()), ['answered', 'answered']);
  await seal.apply();
  assert.deepEqual(codes(await ask()), ['sealed', 'sealed']);
  assert.deepEqual([open.size, next.open.size], [0, 0]);
  await seal.lift();
  assert.deepEqual(codes(await ask()), ['sealed', 'sealed']);
});

test('upstreams that replace others under an applied seal stay sealed', async () => {
  const { seal } = setUp();
  const next = setUp();
  await seal.replace(next.upstreams);
  assert.deepEqual(codes(await next.ask()), ['sealed', 'sealed']);
  assert.equal(next.created(), 0);
});
