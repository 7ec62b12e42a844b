import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  acceptedManifestTypes,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
  parseManifest,
} from '../../../src/oci/manifest.ts';

const DIGEST_A = `sha256:${'a'.repeat(64)}`;
const DIGEST_B = `sha512:${'b'.repeat(128)}`;

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

test('an image manifest lists its config and its layers', () => {
  const parsed = parseManifest(
    json({
      schemaVersion: 2,
      mediaType: DOCKER_MANIFEST,
      config: { digest: DIGEST_A, size: 3, mediaType: 'c' },
      layers: [{ digest: DIGEST_B, size: 7, mediaType: 'l', urls: ['https://elsewhere.example/'] }],
    }),
  );
  assert.equal(parsed?.mediaType, DOCKER_MANIFEST);
  assert.deepEqual(
    parsed?.blobs.map(({ digest, size }) => [digest, size]),
    [
      [DIGEST_A, 3],
      [DIGEST_B, 7],
    ],
  );
});

test('an index without mediaType has the type that upstream sent, or the type of its shape', () => {
  const index = json({ schemaVersion: 2, manifests: [{ digest: DIGEST_A, size: 1 }] });
  assert.equal(parseManifest(index, OCI_INDEX)?.mediaType, OCI_INDEX);
  assert.equal(parseManifest(index, DOCKER_LIST)?.mediaType, DOCKER_LIST);
  assert.equal(parseManifest(index, 'text/plain')?.mediaType, OCI_INDEX);
  assert.equal(parseManifest(index)?.manifests.length, 1);
});

test('an image without mediaType is recognised by its config', () => {
  assert.equal(parseManifest(json({ schemaVersion: 2, config: {} }), 'text/plain')?.mediaType, OCI_MANIFEST);
});

for (const [what, bytes] of [
  ['HTML', Buffer.from('<html></html>')],
  ['a JSON array', json([])],
  ['null', json(null)],
  ['nothing', Buffer.alloc(0)],
  ['docker schema 1, whose digest does not cover its bytes', json({ schemaVersion: 1, fsLayers: [] })],
  ['an unknown media type without a known shape', json({ schemaVersion: 2, mediaType: 'application/json' })],
] as const) {
  test(`${what} is not a manifest`, () => assert.equal(parseManifest(bytes, 'application/json'), undefined));
}

test('descriptors that cannot be verified are left out', () => {
  const layers = [
    { digest: 'md5:00', size: 1 },
    { digest: DIGEST_A, size: -1 },
    { digest: DIGEST_A },
    'text',
    null,
    { digest: DIGEST_B, size: 2 },
  ];
  const parsed = parseManifest(json({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: 5, layers }));
  assert.deepEqual(
    parsed?.blobs.map(({ digest }) => digest),
    [DIGEST_B],
  );
});

test('the order of the types in Accept makes no difference', () => {
  const some = acceptedManifestTypes(`${OCI_INDEX}, ${DOCKER_MANIFEST};q=0.5,${OCI_INDEX}`);
  assert.deepEqual(some, acceptedManifestTypes(`${DOCKER_MANIFEST}, ${OCI_INDEX}`));
  assert.equal(some.length, 2);
});

test('a client with a wildcard, without Accept, or with unknown types only accepts any type', () => {
  assert.deepEqual(acceptedManifestTypes(undefined), []);
  assert.deepEqual(acceptedManifestTypes('*/*'), []);
  assert.deepEqual(acceptedManifestTypes(`${OCI_INDEX}, */*`), []);
  assert.deepEqual(acceptedManifestTypes('application/json'), []);
});
