/** Reads the JSON that `trivy image --format json` writes, schema version 2. */
import { z } from 'zod';
import { parseReport } from './json.ts';
import { ReportError, type ScanFinding, type ScanReport, severityOf } from './scan-report.ts';

/** Trivy leaves out what is empty (Go's `omitempty`), or writes null for it. */
function listOf<T extends z.ZodType>(entry: T) {
  return z
    .array(entry)
    .nullish()
    .transform((list) => list ?? []);
}

const text = z.string();

const vulnerability = z.object({
  VulnerabilityID: text,
  PkgName: text,
  InstalledVersion: text.optional(),
  FixedVersion: text.optional(),
  Severity: text,
});
const secret = z.object({ RuleID: text, Severity: text });
const misconfiguration = z.object({ ID: text, Severity: text, Status: text });

const result = z.object({
  Packages: listOf(z.unknown()),
  Vulnerabilities: listOf(vulnerability),
  Secrets: listOf(secret),
  Misconfigurations: listOf(misconfiguration),
});

const schema = z.object({
  SchemaVersion: z.literal(2),
  ArtifactName: text,
  ArtifactType: z.literal('container_image'),
  Metadata: z.object({
    OS: z.object({ Family: text }).nullish(),
    RepoDigests: listOf(text),
  }),
  Results: listOf(result),
});

/**
 * @param expected the reference by digest that Trivy was told to scan: `host:port/repository@sha256:…`
 * @throws {ReportError} it cannot be read, or is about another image
 */
export function readTrivyReport(bytes: Buffer, expected: string): ScanReport {
  const { ArtifactName, Metadata, Results } = parseReport(bytes, schema);
  if (ArtifactName !== expected || !Metadata.RepoDigests.includes(expected))
    throw new ReportError('the report is about another image');
  const hasPackage = Results.some(({ Packages }) => Packages.length > 0);
  return {
    findings: Results.flatMap(findingsOf),
    recognised: (Metadata.OS?.Family ?? '') !== '' || hasPackage,
  };
}

function findingsOf({ Vulnerabilities, Secrets, Misconfigurations }: z.infer<typeof result>): ScanFinding[] {
  return [
    ...Vulnerabilities.map((entry): ScanFinding => {
      const { VulnerabilityID: id, PkgName, InstalledVersion, FixedVersion, Severity } = entry;
      return {
        ...{ kind: 'vulnerability', id, severity: severityOf(Severity), package: PkgName },
        ...(InstalledVersion === undefined ? {} : { version: InstalledVersion }),
        ...(FixedVersion === undefined || FixedVersion === '' ? {} : { fixedIn: FixedVersion }),
      };
    }),
    ...Secrets.map(({ RuleID: id, Severity }): ScanFinding => {
      return { kind: 'secret', id, severity: severityOf(Severity) };
    }),
    // Trivy lists checks that have passed, too, if it is told to by its own environment.
    ...Misconfigurations.filter(({ Status }) => Status !== 'PASS').map(
      ({ ID: id, Severity }): ScanFinding => ({
        ...{ kind: 'misconfiguration', id, severity: severityOf(Severity) },
      }),
    ),
  ];
}
