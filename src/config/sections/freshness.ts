/** How long a cached tag may be served without asking upstream. */
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
  tagTtl: freshnessFields.tagTtl.prefault('5m').describe('How long a tag is served without asking upstream.'),
  immutableTags: freshnessFields.immutableTags
    .prefault(['^v?\\d+\\.\\d+\\.\\d+$'])
    .describe('Regular expressions; a cached tag that matches one is never revalidated.'),
  staleWhileRevalidate: freshnessFields.staleWhileRevalidate
    .prefault('0s')
    .describe('For this long after tagTtl, a tag is served at once and upstream is asked in the background.'),
  staleIfError: freshnessFields.staleIfError
    .prefault('7d')
    .describe('For this long after tagTtl, a tag is served while upstream fails.'),
  onTagDeleted: freshnessFields.onTagDeleted
    .prefault('forget')
    .describe('Whether to forget or keep a cached tag that upstream no longer has.'),
  negativeTtl: freshnessFields.negativeTtl
    .prefault('30s')
    .describe('How long a missing manifest is remembered as missing.'),
  repositories: list(
    section({
      match: repositoryPattern().describe('Repositories that this entry applies to, such as org/*.'),
      tagTtl: freshnessFields.tagTtl.optional().describe('As above, for these repositories.'),
      immutableTags: freshnessFields.immutableTags.optional().describe('As above, for these repositories.'),
      staleWhileRevalidate: freshnessFields.staleWhileRevalidate
        .optional()
        .describe('As above, for these repositories.'),
      staleIfError: freshnessFields.staleIfError.optional().describe('As above, for these repositories.'),
      onTagDeleted: freshnessFields.onTagDeleted.optional().describe('As above, for these repositories.'),
      negativeTtl: freshnessFields.negativeTtl.optional().describe('As above, for these repositories.'),
    }),
  )
    .prefault([])
    .describe('Exceptions for some repositories; the first entry that matches applies.'),
});
