import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ACCEPT_ALL_MANIFESTS,
  acceptedManifestTypes,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isNondistributable,
  OCI_INDEX,
  OCI_MANIFEST,
  parseManifest,
  platformOf,
} from '../../../src/oci/manifest.ts';

const DIGEST_A = `sha256:${'a'.repeat(64)}`;
const OCI_ARTIFACT = 'application/vnd.oci.artifact.manifest.v1+json';
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
  ['docker schema 1, whose digest does not cover its bytes', json({ schemaVersion: 1, config: {} })],
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
  assert.deepEqual(acceptedManifestTypes(`${OCI_INDEX}, application/*;q=0.5`), []);
  assert.deepEqual(acceptedManifestTypes(`${OCI_INDEX}, */*`), []);
  assert.deepEqual(acceptedManifestTypes('application/json'), []);
});

test('upstream is asked for every manifest type that is served, each word for word', () => {
  const types = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT];
  assert.deepEqual(ACCEPT_ALL_MANIFESTS.split(', ').toSorted(), [...types, '*/*;q=0.1'].toSorted());
  for (const mediaType of types) {
    assert.equal(parseManifest(json({ schemaVersion: 2, mediaType }))?.mediaType, mediaType);
  }
});

test('a manifest that lists ten thousand blobs is read, and one that lists more is refused', () => {
  const layers = Array.from({ length: 10_001 }, () => ({ digest: DIGEST_A, size: 1 }));
  const manifest = (count: number) =>
    json({ schemaVersion: 2, mediaType: OCI_ARTIFACT, blobs: layers.slice(0, count - 1) });
  // Asks for one blob less: the config counts, too, even where there is none.
  assert.equal(parseManifest(manifest(10_000))?.blobs.length, 9_999);
  // Compares without assert.equal, which would print the ten thousand.
  assert.ok(parseManifest(manifest(10_001)) === undefined);
});

test('only layers of a foreign or nondistributable type may be missing from a registry', () => {
  const may = (mediaType: string) => isNondistributable({ mediaType });
  assert.ok(may('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'));
  assert.ok(may('application/vnd.oci.image.layer.nondistributable.v1.tar+gzip'));
  assert.ok(!may('application/vnd.docker.image.rootfs.diff.tar.gzip'));
  assert.ok(!may('application/vnd.oci.image.layer.v1.tar+gzip'));
});

test('a platform is os, architecture and variant; an attestation has none', () => {
  assert.equal(platformOf({ os: 'linux', architecture: 'amd64' }), 'linux/amd64');
  assert.equal(platformOf({ os: 'linux', architecture: 'arm', variant: 'v7' }), 'linux/arm/v7');
  assert.equal(platformOf({ os: 'unknown', architecture: 'unknown' }), undefined);
  assert.equal(platformOf({ os: 'linux' }), undefined);
  assert.equal(platformOf(undefined), undefined);
});
