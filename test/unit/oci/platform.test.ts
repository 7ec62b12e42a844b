import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../../src/oci/digest.ts';
import { type Descriptor, OCI_INDEX, OCI_MANIFEST, platformOf } from '../../../src/oci/manifest.ts';
import { choosePlatforms } from '../../../src/oci/platform.ts';

function listed(platform: string | undefined, mediaType = OCI_MANIFEST): Descriptor {
  const digest = digestOf(Buffer.from(`${platform} ${mediaType}`));
  return { mediaType, digest, size: 1, ...(platform === undefined ? {} : { platform }) };
}

for (const [has, wants, fits] of [
  ['linux/amd64', 'linux/amd64', true],
  ['linux/amd64', 'linux/arm64', false],
  ['linux/arm/v7', 'linux/arm', true],
  ['linux/arm/v7', 'linux/arm/v6', false],
  ['linux/arm64', 'linux/arm', false],
  ['linux/arm64/v8', 'linux/arm64', true],
  ['linux/arm64', 'linux/arm64/v8', true],
] as const) {
  test(`an image for ${has} ${fits ? 'is' : 'is not'} one for ${wants}`, () => {
    const one = listed(has);
    const { chosen, absent } = choosePlatforms([one], [wants]);
    assert.deepEqual(
      { chosen, absent },
      fits ? { chosen: [one], absent: [] } : { chosen: [], absent: [wants] },
    );
  });
}

test('an index in an index is kept, whatever platform is chosen', () => {
  const nested = listed(undefined, OCI_INDEX);
  const { chosen, absent } = choosePlatforms([nested, listed('linux/amd64')], ['linux/arm64']);
  assert.deepEqual({ chosen, absent }, { chosen: [nested], absent: [] });
});

test('an attestation beside an image is for no platform', () => {
  assert.equal(platformOf({ os: 'unknown', architecture: 'unknown' }), undefined);
  assert.equal(platformOf({ os: 'linux', architecture: 'arm', variant: 'v7' }), 'linux/arm/v7');
});
