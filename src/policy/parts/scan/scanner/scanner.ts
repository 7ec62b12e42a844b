/** What every scanner does, and what the parts of this folder share. */
import type { Subject } from '../../part.ts';
import type { QuarantineContent } from '../quarantine/content.ts';
import type { ScanReport } from '../report/scan-report.ts';

export type ScanOutcome =
  | { kind: 'report'; report: ScanReport }
  /** It could not be started or reached, or has no database. No byte of the image has been near it. */
  | { kind: 'unavailable'; reason: string }
  /** It was well, and then gave no report that counts. */
  | { kind: 'failed'; reason: string };

export interface Scanner extends AsyncDisposable {
  /**
   * Scans one image. Whatever the scanner does, this ends: limits/patience.ts says when.
   *
   * @param content where the image's blobs come from
   * @param signal ends the scan
   * @throws what `content` throws, if the scanner did not get the bytes
   * @throws the reason of `signal`, when it aborts, and an error when the scanner is being closed
   */
  scan(subject: Subject, content: QuarantineContent, signal: AbortSignal): Promise<ScanOutcome>;
}
