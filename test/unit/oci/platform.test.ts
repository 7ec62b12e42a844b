import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../../src/oci/digest.ts';
import { type Descriptor, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST } from '../../../src/oci/manifest.ts';
import { choosePlatforms } from '../../../src/oci/platform.ts';

function descriptor(platform?: string, mediaType = OCI_MANIFEST): Descriptor {
  const digest = digestOf(Buffer.from(`${mediaType} ${platform}`));
  return { mediaType, digest, size: 1, ...(platform === undefined ? {} : { platform }) };
}

/** The platforms that are chosen from an index of `listed`, and those that it lacks. */
function choose(listed: readonly string[], wanted: readonly string[]) {
  const { chosen, absent } = choosePlatforms(
    listed.map((platform) => descriptor(platform)),
    wanted,
  );
  return { chosen: chosen.map(({ platform }) => platform), absent };
}

test('without a platform, all manifests are chosen', () => {
  const listed = ['linux/amd64', 'linux/arm64'];
  assert.deepEqual(choose(listed, []), { chosen: listed, absent: [] });
});

test('a platform without a variant chooses all of its variants, and no other architecture', () => {
  const listed = ['linux/arm/v6', 'linux/arm/v7', 'linux/arm64', 'linux/amd64'];
  assert.deepEqual(choose(listed, ['linux/arm']), { chosen: ['linux/arm/v6', 'linux/arm/v7'], absent: [] });
});

test('a platform with a variant chooses only this variant', () => {
  const listed = ['linux/arm/v6', 'linux/arm/v7'];
  assert.deepEqual(choose(listed, ['linux/arm/v7']), { chosen: ['linux/arm/v7'], absent: [] });
});

test('arm64 and arm64/v8 are the same platform', () => {
  assert.deepEqual(choose(['linux/arm64'], ['linux/arm64/v8']), { chosen: ['linux/arm64'], absent: [] });
  assert.deepEqual(choose(['linux/arm64/v8'], ['linux/arm64']), { chosen: ['linux/arm64/v8'], absent: [] });
});

test('a platform that the index does not list is reported', () => {
  assert.deepEqual(choose(['linux/amd64'], ['linux/amd64', 'linux/s390x']), {
    chosen: ['linux/amd64'],
    absent: ['linux/s390x'],
  });
});

test('an index inside the index is always chosen, because it may hold any platform', () => {
  for (const mediaType of [OCI_INDEX, DOCKER_LIST]) {
    const listed = [descriptor('linux/amd64'), descriptor(undefined, mediaType)];
    const { chosen, absent } = choosePlatforms(listed, ['linux/s390x']);
    assert.deepEqual([chosen, absent], [[listed[1]], []]);
  }
});

test('a manifest without a platform is not chosen for one', () => {
  const listed = [descriptor('linux/amd64'), descriptor()];
  assert.deepEqual(choosePlatforms(listed, ['linux/amd64']).chosen, [listed[0]]);
});

test('a manifest that lists no others lacks no platform', () => {
  assert.deepEqual(choose([], ['linux/amd64']), { chosen: [], absent: [] });
});
