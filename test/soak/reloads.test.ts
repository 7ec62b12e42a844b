import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inMiB, reloadAgainAndAgain } from '../helpers/reloads.ts';

const RELOADS = 1000;

test('a thousand reloads beside 50 clients: no pull fails, no descriptor is left open, memory does not grow', async (t) => {
  const { early, late, pulls } = await reloadAgainAndAgain(t, { reloads: RELOADS, warmUpPulls: 40_000 });
  t.diagnostic(`${pulls} pulls; after 10 reloads ${inMiB(early)}, after ${RELOADS} ${inMiB(late)}`);
  assert.equal(late.descriptors, early.descriptors);
  assert.ok(late.residentBytes <= 1.1 * early.residentBytes, `${inMiB(early)}, then ${inMiB(late)}`);
});
