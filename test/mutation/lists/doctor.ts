import type { Mutation } from '../mutation.ts';

const CHECKS = 'src/app/doctor/checks';
const FAULTS = ['test/fault/doctor.test.ts'];
const OPENING = ['test/fault/opening.test.ts'];
const STACKS = ['test/fault/stacks.test.ts'];

export const doctor: readonly Mutation[] = [
  {
    file: 'src/app/doctor/diagnose.ts',
    replace: 'const WHOLE_MS = 25_000;',
    by: 'const WHOLE_MS = 35_000;',
    promise: 'doctor ends within 30 s',
    tests: FAULTS,
  },
  {
    file: `${CHECKS}/limit.ts`,
    replace: "method: 'HEAD',",
    by: "method: 'GET',",
    promise: 'doctor spends no pull',
    tests: FAULTS,
  },
  {
    file: `${CHECKS}/limit.ts`,
    replace: 'return remaining > reserve ?',
    by: 'return remaining >= reserve ?',
    promise: 'a limit that is nearly used is warned of',
    tests: FAULTS,
  },
  {
    file: `${CHECKS}/certificate.ts`,
    replace: 'const DAYS_TO_WARN = 14;',
    by: 'const DAYS_TO_WARN = 1;',
    promise: 'a certificate that expires soon is warned of',
    tests: FAULTS,
  },
  {
    file: `${CHECKS}/login.ts`,
    replace: "if (error.code !== 'denied') return { check: 'token', failure };",
    by: "return { check: 'token', failure };",
    promise: 'credentials that the token server refuses are told as such',
    tests: FAULTS,
  },
  {
    file: `${CHECKS}/clock.ts`,
    replace: 'Math.abs(one) < Math.abs(least)',
    by: 'Math.abs(one) > Math.abs(least)',
    promise: 'an upstream whose clock is wrong says nothing about ours',
    tests: FAULTS,
  },
  {
    file: `${CHECKS}/disk.ts`,
    replace: 'if (total === 0)',
    by: 'if (total < 0)',
    promise: 'a file system that keeps no files is told',
    tests: ['test/fault/doctor-disk.test.ts'],
  },
  {
    file: 'src/cache/catalog/open-error.ts',
    replace: 'return await Promise.race([opened, late]);',
    by: 'return Promise.race([opened, late]);',
    promise: 'a cache directory that does not answer is given up',
    tests: OPENING,
  },
  {
    file: 'src/cache/catalog/recovery.ts',
    replace: 'if (!(error instanceof StorageError) || isOutsideFault(error)) throw error;',
    by: 'if (!(error instanceof StorageError)) throw error;',
    promise: 'an index that this user may not open is not taken for a damaged one',
    tests: OPENING,
  },
  {
    file: 'src/telemetry/logged-errors.ts',
    replace: 'return mayBeDefect(error) ? { ...fields, stack } : fields;',
    by: 'return { ...fields, stack };',
    promise: 'an outage is logged without a stack',
    tests: STACKS,
  },
  {
    file: 'src/telemetry/logged-errors.ts',
    replace: 'return mayBeDefect(error) ? { ...fields, stack } : fields;',
    by: 'return fields;',
    promise: 'a defect is logged with its stack',
    tests: STACKS,
  },
];
