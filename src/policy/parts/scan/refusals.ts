/** What a client is told of a refusal. The scanner's own words and addresses stay in the log. */
import type { Refusal } from '../part.ts';
import type { ScanFinding, Severity } from './report/scan-report.ts';

export type RefusedResult =
  | { kind: 'found'; findings: readonly ScanFinding[] }
  | { kind: 'nothing' }
  | { kind: 'failed'; reason: string }
  | { kind: 'unavailable'; reason: string };

/** Findings in `detail`. */
const SHOWN = 20;
/** A report may give any words for names. */
const MAX_TEXT = 200;

export function refusalFor(result: RefusedResult, failOn: Severity): Refusal {
  switch (result.kind) {
    case 'found': {
      const { findings } = result;
      const [worst] = findings.toSorted(
        (a, b) => (a.severity === 'critical' ? 0 : 1) - (b.severity === 'critical' ? 0 : 1),
      );
      const others = findings.length - 1;
      const more = others === 0 ? '' : `, and ${others} more of ${failOn} or above`;
      return {
        ...{ allowed: false, reason: `its scan found ${worst === undefined ? '' : describe(worst)}${more}` },
        advice:
          'use a version of the image in which that is fixed, or ask those who run this mirror for an exception',
        detail: {
          ...{ denied: 'scan', scan: 'found', failOn, count: findings.length },
          findings: findings.slice(0, SHOWN).map(shown),
        },
      };
    }
    case 'nothing':
      return {
        ...{ allowed: false, reason: 'its scan recognised neither an operating system nor a package' },
        advice: 'use an image that can be scanned, or ask those who run this mirror for an exception',
        detail: { denied: 'scan', scan: 'nothing' },
      };
    case 'failed':
      return {
        ...{ allowed: false, reason: `its scan failed: ${cut(result.reason)}` },
        advice: 'ask again in 5 minutes; if it fails again, ask those who run this mirror',
        detail: { denied: 'scan', scan: 'failed' },
      };
    case 'unavailable':
      return {
        ...{ allowed: false, reason: 'it could not be scanned, because the scanner is not available' },
        advice: 'ask again in a minute',
        detail: { denied: 'scan', scan: 'unavailable' },
      };
  }
}

function describe({ id, severity, fixedIn, kind, ...finding }: ScanFinding): string {
  const version = finding.version === undefined ? '' : ` ${cut(finding.version)}`;
  const where = finding.package === undefined ? kind : `${cut(finding.package)}${version}`;
  return `${cut(id)} (${severity}, ${where}${fixedIn === undefined ? '' : `, fixed in ${cut(fixedIn)}`})`;
}

function shown(finding: ScanFinding): Record<string, string> {
  return Object.fromEntries(
    Object.entries(finding).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, cut(String(value))]],
    ),
  );
}

/** Without control characters: the message is printed on terminals. */
function cut(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ').slice(0, MAX_TEXT);
}
