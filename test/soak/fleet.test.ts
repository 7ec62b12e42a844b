import { test } from 'node:test';
import { evictHalf } from '../helpers/fleet-eviction.ts';
import { endTheNodeThatFetches, missingForFleet, pullColdBlobOnce } from '../helpers/fleet-processes.ts';
import { missingPrograms } from '../helpers/real-processes.ts';

// A mirror in this process and a bucket in memory: what counts here is how many objects there are.
const skipEviction = missingPrograms('redis-server');
const skip = missingForFleet();

test('three nodes and sixty clients: a cold blob of 256 MiB is fetched once', { skip }, (t) =>
  pullColdBlobOnce(t, { mebibytes: 256, clients: 60 }),
);

test('the node that fetches is killed, fifty times', { skip }, (t) =>
  endTheNodeThatFetches(t, 'SIGKILL', 50),
);

test('the node that fetches is stopped, twenty times', { skip }, (t) =>
  endTheNodeThatFetches(t, 'SIGTERM', 20),
);

test(
  'of 5 000 objects the store keeps what is hot on any node, and no incomplete image',
  {
    skip: skipEviction,
  },
  (t) => evictHalf(t, 900),
);
