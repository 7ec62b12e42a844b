import { test } from 'node:test';
import { abortAgainAndAgain } from '../helpers/aborts.ts';

test('ten thousand aborted pulls leave no descriptor, no connection and no follower behind', async (t) => {
  await abortAgainAndAgain(t, 500);
});
