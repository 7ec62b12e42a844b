/** How long tags stay good. */
import { repositoryPattern } from '../fields/images.ts';
import { list, oneOf, pattern, section } from '../fields/plain.ts';
import { duration } from '../fields/quantities.ts';

const freshnessFields = {
  tagTtl: duration(),
  immutableTags: list(pattern()),
  staleWhileRevalidate: duration(),
  staleIfError: duration(),
  onTagDeleted: oneOf(['forget', 'keep']),
  negativeTtl: duration(),
};

export const freshnessSchema = section({
  tagTtl: freshnessFields.tagTtl
    .prefault('5m')
    .describe('A tag is served without asking upstream for this long.'),
  immutableTags: freshnessFields.immutableTags
    .prefault(['^v?\\d+\\.\\d+\\.\\d+$'])
    .describe('Tags that match one of these are never revalidated while cached.'),
  staleWhileRevalidate: freshnessFields.staleWhileRevalidate
    .prefault('0s')
    .describe('For this long past tagTtl a tag is served at once, and upstream asked in the background.'),
  staleIfError: freshnessFields.staleIfError
    .prefault('7d')
    .describe('A tag may be served this long past tagTtl while upstream fails.'),
  onTagDeleted: freshnessFields.onTagDeleted
    .prefault('forget')
    .describe('What becomes of a cached tag that upstream no longer has.'),
  negativeTtl: freshnessFields.negativeTtl
    .prefault('30s')
    .describe('A missing manifest is remembered as missing for this long.'),
  repositories: list(
    section({
      match: repositoryPattern().describe('Repositories that this is for, such as org/*.'),
      tagTtl: freshnessFields.tagTtl.optional().describe('As above, for these.'),
      immutableTags: freshnessFields.immutableTags.optional().describe('As above, for these.'),
      staleWhileRevalidate: freshnessFields.staleWhileRevalidate.optional().describe('As above, for these.'),
      staleIfError: freshnessFields.staleIfError.optional().describe('As above, for these.'),
      onTagDeleted: freshnessFields.onTagDeleted.optional().describe('As above, for these.'),
      negativeTtl: freshnessFields.negativeTtl.optional().describe('As above, for these.'),
    }),
  )
    .prefault([])
    .describe('What is different for some repositories; the first that matches counts.'),
});
