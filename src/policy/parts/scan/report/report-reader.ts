/**
 * The process in which a report is read: `report-reader FROM EXPECTED <REPORT`. Started by read-report.ts. Writes what it
 * has read, or what is wrong, as JSON.
 */
import { buffer } from 'node:stream/consumers';
import { readHarborReport } from './harbor-report.ts';
import { ReportError, type ScanFinding, type ScanReport } from './scan-report.ts';
import { readTrivyReport } from './trivy-report.ts';

/** Of a name, or a version. */
const MAX_TEXT = 200;
/**
 * Values in a report. More would not fit into the memory of this process: a value of two bytes takes fifty. Real reports
 * of this length have a third of it.
 */
const MAX_VALUES = 5_000_000;
const STARTS = new Set(Buffer.from(',[{'));

const [, , from, expected = ''] = process.argv;
process.stdout.write(JSON.stringify(read(await buffer(process.stdin))));

function read(bytes: Buffer): { report: ScanReport } | { problem: string } {
  if (countValues(bytes) > MAX_VALUES) return { problem: 'the report is too long' };
  try {
    const report = from === 'trivy' ? readTrivyReport(bytes, expected) : readHarborReport(bytes, expected);
    return { report: { ...report, findings: report.findings.map(cut) } };
  } catch (error) {
    if (error instanceof ReportError) return { problem: error.message };
    throw error;
  }
}

/** At least as many as there are: those in texts count, too. */
function countValues(bytes: Buffer): number {
  let count = 0;
  for (const byte of bytes) if (STARTS.has(byte)) count += 1;
  return count;
}

function cut(finding: ScanFinding): ScanFinding {
  const texts = Object.entries(finding).map(([key, value]) => [key, value?.slice(0, MAX_TEXT)]);
  return { ...finding, ...Object.fromEntries(texts) };
}
