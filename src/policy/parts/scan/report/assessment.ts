/** Says what a report means under the settings of a policy. Pure. */
import { reaches, type ScanFinding, type ScanReport, type Severity } from './scan-report.ts';

export interface AssessmentSettings {
  /** This severity and everything above it fails. */
  failOn: Severity;
  /** Whether a vulnerability that is fixed in no version counts for nothing. */
  ignoreUnfixed: boolean;
  secrets: boolean;
  misconfigurations: boolean;
  /** Findings that count for nothing until the moment `until`, in milliseconds since the epoch. */
  except: readonly { id: string; until: number }[];
}

export type Assessment =
  | { kind: 'found'; findings: readonly ScanFinding[]; until: number }
  | { kind: 'clean'; until: number }
  | { kind: 'nothing'; until: number }
  /** There are findings of which nobody can say whether they are above the limit. */
  | { kind: 'unrated'; findings: readonly ScanFinding[]; until: number };

/**
 * A finding without a severity that we know is never taken for harmless: it makes the report one that says nothing,
 * unless an exception names it.
 *
 * @param now milliseconds since the epoch
 * @returns with `until` up to when the exceptions that mattered hold; infinity if none did
 */
export function assess(report: ScanReport, settings: AssessmentSettings, now: number): Assessment {
  const ends = new Map<string, number>();
  for (const { id, until } of settings.except) {
    if (now < until) ends.set(id, Math.max(until, ends.get(id) ?? until));
  }
  let until = Number.POSITIVE_INFINITY;
  const found: ScanFinding[] = [];
  const unrated: ScanFinding[] = [];
  for (const finding of report.findings) {
    if (!counts(finding, settings)) continue;
    const { id, severity } = finding;
    if (severity !== undefined && !reaches(severity, settings.failOn)) continue;
    const end = ends.get(id);
    if (end !== undefined) until = Math.min(until, end);
    else (severity === undefined ? unrated : found).push(finding);
  }
  if (found.length > 0) return { kind: 'found', findings: found, until };
  if (unrated.length > 0) return { kind: 'unrated', findings: unrated, until };
  return { kind: report.recognised ? 'clean' : 'nothing', until };
}

function counts({ kind, fixedIn }: ScanFinding, settings: AssessmentSettings): boolean {
  switch (kind) {
    case 'vulnerability':
      return fixedIn !== undefined || !settings.ignoreUnfixed;
    case 'secret':
      return settings.secrets;
    case 'misconfiguration':
      return settings.misconfigurations;
  }
}
