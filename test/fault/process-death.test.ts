import { test } from 'node:test';
import { killAgainAndAgain } from '../helpers/kills.ts';

test('kill -9 in the middle of fills, a few times: what is committed is whole, and partial blobs are resumed', async (t) => {
  await killAgainAndAgain(t, 6, 1);
});
