import { test } from 'node:test';
import { missingEngines } from '../helpers/engines.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { CLIENTS_OF_SCANS, pullDuringScan } from '../helpers/slow-scans.ts';

const skip =
  missingPrograms('dockerd', 'containerd', 'ctr', 'podman', 'busybox', 'openssl') ||
  missingEngines('containerd');

for (const [name, prepare] of Object.entries(CLIENTS_OF_SCANS)) {
  test(
    `a scan of 90 seconds, with ${name}: the first pull fails with our text, one after it succeeds`,
    {
      skip,
    },
    (t) => pullDuringScan(t, prepare, { policyWait: '20s', scanMs: 90_000 }),
  );
}
