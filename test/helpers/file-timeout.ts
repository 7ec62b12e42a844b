/**
 * Ends a test file that goes on for far too long. The runner's own limit is one of a test: a test that ran into it and
 * still waits in a loop keeps its file, and the gate, alive for ever. Loaded with `--import` into every file's process.
 */
import process from 'node:process';

const LIMIT_MS = 10 * 60_000;

// The runner itself takes longer than that on a slow machine.
if (process.env['NODE_TEST_CONTEXT'] !== undefined)
  setTimeout(() => {
    process.stderr.write(`${process.argv[1]}: still running after ${LIMIT_MS / 60_000} minutes, given up\n`);
    process.exit(1);
  }, LIMIT_MS).unref();
