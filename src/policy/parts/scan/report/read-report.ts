/**
 * Reads reports in a process of their own. One of 64 MiB takes seconds, and its JSON may take gigabytes of memory, which
 * ends the process: that must not be the mirror's. (A thread is not enough: its end by want of memory ends the whole.)
 */
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../../../../clock.ts';
import { runChild } from '../child/child.ts';
import { ReportError, type ScanReport } from './scan-report.ts';

export interface ReadQuestion {
  from: 'trivy' | 'harbor';
  bytes: Buffer;
  /** The reference, or the digest, that the report has to be about. */
  expected: string;
}

const MAX_MEMORY_MB = 1024;
/** What is left of a report: some 100 bytes for each finding. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;
/** The sources are TypeScript where they are tested, and JavaScript where they are installed. */
const READER = fileURLToPath(new URL('./report-reader.ts', import.meta.url)).replace(
  /\.ts$/,
  extname(import.meta.filename),
);

/**
 * @param signal ends it
 * @throws {ReportError} it cannot be read, or is about another image
 * @throws the reason of `signal`, when it aborts
 */
export async function readReport(
  { from, bytes, expected }: ReadQuestion,
  clock: Clock,
  signal: AbortSignal,
): Promise<ScanReport> {
  const settings = {
    ...{ command: process.execPath, env: {}, cwd: '/', maxOutputBytes: MAX_ANSWER_BYTES, input: bytes },
    args: [`--max-old-space-size=${MAX_MEMORY_MB}`, READER, from, expected],
  };
  const { code, overflowed, stdout } = await runChild(settings, clock, signal);
  if (overflowed) throw new ReportError('the report has too many findings');
  if (code !== 0) throw new ReportError('the report could not be read to its end');
  // Ours, and so believed: it was written by the reader.
  const answer = JSON.parse(stdout.toString('utf8')) as { report: ScanReport } | { problem: string };
  if ('problem' in answer) throw new ReportError(answer.problem);
  return answer.report;
}
