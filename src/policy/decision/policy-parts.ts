/** Makes the conditions of a policy out of its settings and of the files that they name. */
import { createHash } from 'node:crypto';
import { compileRepositoryPattern, type UpstreamByHost } from '../../access/rules/repositories.ts';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { AgePart } from '../parts/age/age-part.ts';
import type { Sightings } from '../parts/age/sightings.ts';
import { readDenyList } from '../parts/deny/deny-list.ts';
import { type DenyContext, DenyPart } from '../parts/deny/deny-part.ts';
import type { PolicyPart, Subject } from '../parts/part.ts';
import type { QuarantineContent } from '../parts/scan/quarantine/content.ts';
import { type SignatureSettings, signatureFiles } from '../parts/signature/settings.ts';
import type { Findings } from './findings.ts';
import type { PolicyParts, PolicySettings } from './policy.ts';
import type { Lease, ScannerSettings } from './scanners.ts';

export interface ConditionSettings extends PolicySettings {
  deny?: DenySettings | undefined;
  /** Milliseconds. */
  minimumAge?: number | undefined;
  signature?: SignatureSettings | undefined;
  scan?: ScannerSettings | undefined;
}

interface DenySettings {
  /** Files. */
  digests: readonly string[];
  /** Patterns. */
  repositories: readonly string[];
}

export interface PartsContext extends DenyContext {
  upstreams: UpstreamByHost;
  /** Absent: no policy counts how long something has been seen. */
  sightings?: Sightings | undefined;
  /** Of the policy. Absent: it does not scan. */
  scanner?: Lease | undefined;
  /** The blobs of a manifest's repository. */
  contentOf: (subject: Subject) => QuarantineContent;
  findings: Findings;
  metrics: Metrics;
  clock: Clock;
  logger: Logger;
}

/** The files that a policy names. */
export function filesOf({ deny, signature }: ConditionSettings): string[] {
  return [
    ...new Set([...(deny?.digests ?? []), ...(signature === undefined ? [] : signatureFiles(signature))]),
  ];
}

/**
 * @param contents of {@link filesOf}, in this order
 * @throws {FileError} a file cannot be used
 */
export async function makeParts(
  settings: ConditionSettings,
  contents: readonly Buffer[],
  context: PartsContext,
): Promise<PolicyParts> {
  const { deny, minimumAge, signature } = settings;
  const { upstreams, sightings, clock, scanner } = context;
  const files = new Map(filesOf(settings).map((path, at) => [path, contents[at] ?? Buffer.alloc(0)]));
  const read = (path: string) => files.get(path) ?? Buffer.alloc(0);
  const hash = createHash('sha256').update(JSON.stringify(settings));
  for (const content of contents) hash.update(createHash('sha256').update(content).digest());
  return {
    hash: hash.digest('base64url'),
    deny: deny && makeDeny(deny, read, upstreams, context),
    age:
      minimumAge === undefined || sightings === undefined
        ? undefined
        : new AgePart(minimumAge, { clock, sightings }),
    // Loaded only where it is configured: it brings much code.
    signature:
      signature &&
      (await import('../parts/signature/signature-part.ts')).SignaturePart.create(signature, read, clock),
    scan: scanner && (await makeScan(settings.name, scanner, context)),
  };
}

async function makeScan(
  policy: string,
  { scanner, settings }: Lease,
  context: PartsContext,
): Promise<PolicyPart> {
  const { ScanPart } = await import('../parts/scan/scan-part.ts');
  const { clock, logger, contentOf, findings, metrics } = context;
  // Holds whatever becomes of the policy and its files: an image that was clean once is no new one.
  const name = `${policy}.clean`;
  return new ScanPart(settings, {
    ...{ clock, logger, scanner, contentOf },
    count: (result) => metrics.policyScans.inc({ policy, result }),
    clean: {
      has: async (subject) => (await findings.recall(subject, name, '')) !== undefined,
      add: (subject) => findings.keep(subject, name, '', undefined),
    },
  });
}

function makeDeny(
  { digests, repositories }: DenySettings,
  read: (path: string) => Buffer,
  upstreams: UpstreamByHost,
  context: DenyContext,
): DenyPart {
  const denied = new Set(digests.flatMap((path) => readDenyList(read(path), path)));
  const patterns = repositories.map((pattern) => compileRepositoryPattern(pattern, upstreams));
  return new DenyPart(denied, (name) => patterns.some((matches) => matches(name)), context);
}
