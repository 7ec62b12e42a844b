/**
 * Reads the report of a scanner that speaks Harbor's pluggable scanner API: `HarborVulnerabilityReport` of its OpenAPI
 * document, the same in versions 1.0 and 1.1 of the media type.
 */
import { z } from 'zod';
import { parseReport } from './json.ts';
import { ReportError, type ScanFinding, type ScanReport, severityOf } from './scan-report.ts';

const vulnerability = z.object({
  id: z.string(),
  package: z.string(),
  version: z.string().optional(),
  fix_version: z.string().nullish(),
  severity: z.string(),
});

const schema = z.object({
  artifact: z.object({ digest: z.string() }),
  // Required, although the document does not say so: a report without the list would be taken for a clean one.
  vulnerabilities: z.array(vulnerability),
});

/**
 * The report of this API does not say what was recognised, so an image without findings counts as recognised.
 *
 * @param expected the digest of the manifest
 * @throws {ReportError} it cannot be read, or is about another image
 */
export function readHarborReport(bytes: Buffer, expected: string): ScanReport {
  const { artifact, vulnerabilities } = parseReport(bytes, schema);
  if (artifact.digest !== expected) throw new ReportError('the report is about another image');
  return { recognised: true, findings: vulnerabilities.map(findingOf) };
}

function findingOf({ id, version, severity, ...entry }: z.infer<typeof vulnerability>): ScanFinding {
  const { fix_version: fixedIn } = entry;
  return {
    ...{ kind: 'vulnerability', id, severity: severityOf(severity), package: entry.package },
    ...(version === undefined ? {} : { version }),
    ...(fixedIn === undefined || fixedIn === null || fixedIn === '' ? {} : { fixedIn }),
  };
}
