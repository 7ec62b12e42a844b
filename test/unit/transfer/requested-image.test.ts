import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatImageName } from '../../../src/oci/image-name.ts';
import { ImageError } from '../../../src/transfer/errors.ts';
import { requestedImage } from '../../../src/transfer/requested-image.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const upstreamOf = (host: string) => ({ 'docker.io': 'docker.io', 'hub.test': 'docker.io' })[host];

for (const [text, name, reference] of [
  ['alpine', 'docker.io/library/alpine:latest', 'latest'],
  ['hub.test/org/app:1', 'docker.io/org/app:1', '1'],
  [`org/app@${DIGEST}`, `docker.io/org/app@${DIGEST}`, DIGEST],
  [`org/app:1@${DIGEST}`, `docker.io/org/app@${DIGEST}`, DIGEST],
] as const) {
  test(`${text} means ${name}`, () => {
    const image = requestedImage(text, upstreamOf);
    assert.equal(formatImageName(image.name), name);
    assert.equal(image.reference, reference);
    assert.deepEqual(image.key, { upstream: 'docker.io', repository: image.name.repository });
  });
}

for (const [text, code, message] of [
  ['A\nB', 'bad-name', '"A\\nB" is not an image name: write it like docker.io/library/alpine:3.20'],
  [
    'quay.io/org/app:1',
    'unknown-upstream',
    'quay.io, the registry of quay.io/org/app:1, is not a configured upstream: add it under upstreams: in the configuration',
  ],
] as const) {
  test(`${JSON.stringify(text)} is refused with advice, in one line`, () => {
    assert.throws(
      () => requestedImage(text, upstreamOf),
      (error) => error instanceof ImageError && error.code === code && error.message === message,
    );
  });
}
