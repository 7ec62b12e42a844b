import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { killAgainAndAgain } from '../helpers/kills.ts';

const KILLS = 200;

test('kill -9 in the middle of fills, two hundred times: what is committed is whole, and partial blobs are resumed', async (t) => {
  await killAgainAndAgain(t, KILLS, randomInt(2 ** 31));
});
