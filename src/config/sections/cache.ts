/** What the cache keeps, and where. */
import { imagePattern } from '../fields/images.ts';
import { path } from '../fields/paths.ts';
import { group, list, oneOf, section, share } from '../fields/plain.ts';
import { interval, sizeOrNone, sizeOrShare } from '../fields/quantities.ts';

export const cacheSchema = section({
  directory: path().prefault('./millpond-data').describe('Folder of the cached content and its index.'),
  group: group()
    .prefault('none')
    .describe(
      'Group that may read blobs/ of the directory, by name or number: that of an nginx in front of Millpond. All else is for its owner only.',
    ),
  maxSize: sizeOrShare()
    .prefault('50GiB')
    .describe('Most that the cache may hold: a size, or a share of its file system such as 80%.'),
  lowWatermark: share().prefault(0.9).describe('Eviction stops at this share of maxSize.'),
  keepFree: sizeOrNone()
    .prefault('1GiB')
    .describe('Space that the cache leaves free on its file system, whatever maxSize says.'),
  pin: list(imagePattern())
    .prefault([])
    .describe('Images that are never evicted, such as docker.io/library/alpine:*.'),
  imported: oneOf(['keep', 'evict'])
    .prefault('keep')
    .describe('Whether imported images stay until they are removed, or may be evicted like all others.'),
  scrubInterval: interval()
    .prefault('none')
    .describe('How often all stored content is read and verified, such as 7d.'),
})
  .prefault({})
  .describe('What the cache keeps, and where.');
