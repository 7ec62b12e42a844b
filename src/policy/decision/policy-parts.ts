/** Makes the conditions of a policy out of its settings and of the files that they name. */
import { createHash } from 'node:crypto';
import { compileRepositoryPattern, type UpstreamByHost } from '../../access/rules/repositories.ts';
import type { Clock } from '../../clock.ts';
import { AgePart } from '../parts/age/age-part.ts';
import type { Sightings } from '../parts/age/sightings.ts';
import { readDenyList } from '../parts/deny/deny-list.ts';
import { type DenyContext, DenyPart } from '../parts/deny/deny-part.ts';
import { type SignatureSettings, signatureFiles } from '../parts/signature/settings.ts';
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
  clock: Clock;
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
    scan: scanner?.part,
  };
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
