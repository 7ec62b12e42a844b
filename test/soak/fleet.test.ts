import { test } from 'node:test';
import { endTheNodeThatFetches, missingForFleet, pullColdBlobOnce } from '../helpers/fleet-processes.ts';

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
