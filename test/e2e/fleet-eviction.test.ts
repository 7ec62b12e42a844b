/** What leaves the object store of a fleet: a part of test/soak. */
import { test } from 'node:test';
import { evictHalf } from '../helpers/fleet-eviction.ts';
import { missingPrograms } from '../helpers/real-processes.ts';

test(
  'of 500 objects the store keeps what is hot on any node, and no incomplete image',
  {
    skip: missingPrograms('redis-server'),
  },
  (t) => evictHalf(t, 90),
);
