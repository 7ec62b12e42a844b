/** The settings of a policy's `scan`. Checked for their shape before they come here. */
import type { AssessmentSettings } from '../report/assessment.ts';

export interface ScanSettings extends AssessmentSettings {
  /** Path or name of the program. */
  trivy?: string | undefined;
  /** URL of a server of Trivy's, which the program asks. */
  trivyServer?: string | undefined;
  /** URL of a scanner that speaks Harbor's pluggable scanner API, version 1. */
  adapter?: string | undefined;
  ifUnavailable: Fallback;
  ifFailed: Fallback;
  ifNothingFound: Fallback;
  /** How long the scanner may take for one image; milliseconds. limits/patience.ts says what is counted. */
  timeout: number;
  /** How long a result holds; milliseconds. */
  rescan: number;
  /** What happens to an image that was clean when it is found to be bad: `report` lets it in, counts and logs it. */
  onNewFinding: 'deny' | 'report';
  /** Further variables for the child. */
  environment: Readonly<Record<string, string>>;
  /** For the scanner's cache and temporary files; an absolute path. Nothing else is in it. */
  directory: string;
  /** What may be in `directory`. */
  maxDirectoryBytes: number;
  /** Scans at a time. */
  concurrency: number;
  /** How much memory a child may have; null sets no limit. */
  memoryBytes: number | null;
}

export type Fallback = 'allow' | 'deny';
