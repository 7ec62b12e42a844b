/**
 * What stands in the journal. A removal and a seal are decisions: each has a number, and is an object of the store, too.
 *
 * Later versions may add fields and kinds. They are ignored.
 */
import * as z from 'zod';
import type { Repository, Tag } from '../../oci/reference.ts';
import { digestField, sizeField } from '../records/signed-record.ts';

const repository = z.string().transform((text) => text as Repository);
const tag = z.string().transform((text) => text as Tag);

/** When it was decided, by the coordinator's clock; milliseconds since the epoch. */
const at = z.number();

const removal = z.object({
  kind: z.literal('removal'),
  at,
  /** Its name, and not its key: an image is removed from nodes that log in as somebody else, too. */
  upstream: z.string(),
  repository,
  /** What was to be removed: a tag or a digest. */
  reference: z.string(),
  /** The tags of the repository that went with it. */
  tags: z.array(tag),
  /** What the repository may not serve any more. A manifest comes before what it lists. */
  digests: z.array(digestField),
});

const seal = z.object({ kind: z.literal('seal'), at, sealed: z.boolean() });

const KINDS: readonly string[] = ['removal', 'seal'];

/** An object of the journal. */
export const decision = z
  .discriminatedUnion('kind', [removal, seal])
  .or(
    z
      .object({ kind: z.string().refine((kind) => !KINDS.includes(kind)), at: at.optional() })
      .transform((entry) => ({ kind: 'unknown' as const, at: entry.at })),
  );

/** A tag that means something else than before. */
export const movedTag = z.object({
  /** When upstream said so. */
  at,
  /** See {@link upstreamKey}. */
  upstream: z.string(),
  repository,
  tag,
  accept: z.string(),
  digest: digestField,
  mediaType: z.string(),
  size: sizeField,
});

/** The name by which a moved tag is signed. */
export const MOVED_TAG = 'moved tag';

export type Decision = z.output<typeof decision>;
type Known = Exclude<Decision, { kind: 'unknown' }>;
/** What is decided, without the time. */
export type NewDecision = Known extends infer One ? (One extends Known ? Omit<One, 'at'> : never) : never;
export type RemovalEntry = z.output<typeof removal>;
export type MovedTag = z.output<typeof movedTag>;
