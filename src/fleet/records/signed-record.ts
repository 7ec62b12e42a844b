/**
 * What stands in a record: a line with the MAC, and a line of JSON.
 *
 * A later version may add fields. They are ignored, and signed all the same, because the MAC is over the text as it came.
 */
import * as z from 'zod';
import { parseDigest } from '../../oci/digest.ts';
import type { FleetSecret } from './fleet-secret.ts';

/** A record is some hundred bytes; that of an index which lists hundreds of manifests, some ten thousand. */
export const RECORD_MAX_BYTES = 4 * 1024 * 1024;

export const digestField = z.string().transform((text, context) => {
  const parsed = parseDigest(text);
  if (parsed !== undefined) return parsed;
  context.issues.push({ code: 'custom', input: text, message: 'not a digest' });
  return z.NEVER;
});
export const sizeField = z.int().min(0);
/** Up to which number its writer had applied the journal. Versions before the journal did not say. */
const journal = z.int().min(0).default(0);

/** What a tag meant when it last moved. */
export const tagRecord = z.object({
  digest: digestField,
  mediaType: z.string(),
  size: sizeField,
  journal,
});

/** A manifest that a repository may serve, and so what it lists. */
export const manifestRecord = z.object({
  mediaType: z.string(),
  size: sizeField,
  lists: z.array(z.tuple([digestField, sizeField])),
  journal,
});

/** A digest that a repository may serve. */
export const allowedRecord = z.object({ size: sizeField, journal });

/** What a member is at. */
export const memberStateRecord = z.object({
  /** Some of what it fetches, and how many there are in all. */
  fetching: z.array(digestField),
  fetches: sizeField,
  /** The member that it calls back, and why that one cannot be reached; null: it can. */
  called: z.object({ id: z.string(), trouble: z.string().nullable() }).optional(),
});

/** What wrote below the prefix. */
export const fleetRecord = z.object({ format: z.int(), readableBy: z.int(), id: z.string() });

export type SharedTag = Omit<z.output<typeof tagRecord>, 'journal'>;
export type MemberState = z.output<typeof memberStateRecord>;
export type SharedManifest = z.output<typeof manifestRecord>;

export async function writeRecord(secret: FleetSecret, name: string, value: object): Promise<Buffer> {
  const json = JSON.stringify(value);
  return Buffer.from(`${await secret.sign(name, json)}\n${json}`);
}

/** @returns undefined if nobody who knows the secret has written this there, or it is not what `schema` says */
export async function readRecord<T>(
  secret: FleetSecret,
  name: string,
  text: string,
  schema: z.ZodType<T>,
): Promise<T | undefined> {
  const end = text.indexOf('\n');
  const json = text.slice(end + 1);
  if (end < 0 || !(await secret.isSigned(name, json, text.slice(0, end)))) return undefined;
  const parsed = schema.safeParse(JSON.parse(json));
  return parsed.success ? parsed.data : undefined;
}
