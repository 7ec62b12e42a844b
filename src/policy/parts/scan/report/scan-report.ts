/** What a scanner found in an image, whichever scanner it was. */

/** The higher, the worse. `negligible` is Harbor's word for what is below `low`. */
const SEVERITIES = ['negligible', 'low', 'medium', 'high', 'critical'] as const;

export type Severity = (typeof SEVERITIES)[number];

type FindingKind = 'vulnerability' | 'secret' | 'misconfiguration';

export interface ScanFinding {
  kind: FindingKind;
  /** `CVE-2024-9999`, or the name of the scanner's rule. */
  id: string;
  /** Undefined: the scanner has given none, or one that we do not know. Such a finding is above no limit and below none. */
  severity: Severity | undefined;
  /** The package and its version, for vulnerabilities. */
  package?: string;
  version?: string;
  /** The version in which it is fixed. Absent: there is none. */
  fixedIn?: string;
}

export interface ScanReport {
  findings: readonly ScanFinding[];
  /** Whether the scanner recognised an operating system or a package. */
  recognised: boolean;
}

/** A report that says nothing about the image: it cannot be read, or is about another. */
export class ReportError extends Error {
  override readonly name = 'ReportError';
}

/** Reads a severity, in whatever case. */
export function severityOf(text: string): Severity | undefined {
  const name = text.toLowerCase();
  // Harbor's `None`: rated, and found harmless.
  return name === 'none' ? 'negligible' : SEVERITIES.find((severity) => severity === name);
}

/** Whether `severity` is at least as bad as `limit`. */
export function reaches(severity: Severity, limit: Severity): boolean {
  return SEVERITIES.indexOf(severity) >= SEVERITIES.indexOf(limit);
}
