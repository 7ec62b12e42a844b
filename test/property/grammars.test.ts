import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseRequest, type RoutingTable } from '../../src/http/registry/routes.ts';
import { formatContentRange, parseRange } from '../../src/http/server/range.ts';
import { parseDigest } from '../../src/oci/digest.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import { acceptedManifestTypes, parseManifest } from '../../src/oci/manifest.ts';
import { isDigest, parseReference, parseRepository, parseTag } from '../../src/oci/reference.ts';

const table: RoutingTable = {
  defaultUpstream: 'docker.io',
  upstreamByHost: new Map([
    ['docker.io', 'docker.io'],
    ['quay.io', 'quay.io'],
  ]),
  upstreamByVirtualHost: new Map([['quay.mirror', 'quay.io']]),
};

const hex = (length: number) => fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`));
const digest = fc.oneof(
  hex(64).map((text) => `sha256:${text}`),
  hex(128).map((text) => `sha512:${text}`),
);
const tag = fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/);
const component = fc
  .tuple(
    fc.stringMatching(/^[a-z0-9]{1,8}$/),
    fc.array(fc.tuple(fc.constantFrom('_', '__', '-', '---'), fc.stringMatching(/^[a-z0-9]{1,5}$/)), {
      maxLength: 2,
    }),
  )
  .map(([first, rest]) => first + rest.flat().join(''));
const repository = fc.array(component, { minLength: 2, maxLength: 6 }).map((parts) => parts.join('/'));

test('every repository, tag and digest of the grammars is accepted, unchanged', () => {
  fc.assert(
    fc.property(repository, tag, digest, (name, someTag, someDigest) => {
      assert.equal(parseRepository(name), name);
      assert.equal(parseTag(someTag), someTag);
      assert.equal(parseDigest(someDigest), someDigest);
      assert.equal(parseReference(someTag), someTag);
      const reference = parseReference(someDigest);
      assert.ok(reference !== undefined && isDigest(reference));
    }),
  );
});

test('a request for any name, even one made of route words, gets its repository and reference', () => {
  const words = fc.constantFrom('manifests', 'blobs', 'tags', 'list', 'referrers', 'v2');
  const anyName = fc
    .array(fc.oneof(component, words), { minLength: 2, maxLength: 6 })
    .map((parts) => parts.join('/'));
  fc.assert(
    fc.property(anyName, tag, digest, fc.constantFrom('', 'quay.io/'), (name, someTag, someDigest, host) => {
      const upstream = host === '' ? 'docker.io' : 'quay.io';
      const manifest = parseRequest(`/v2/${host}${name}/manifests/${someTag}`, undefined, table);
      assert.deepEqual(manifest, { upstream, repository: name, kind: 'manifest', reference: someTag });
      const blob = parseRequest(
        `/v2/${host}${name}/blobs/${encodeURIComponent(someDigest)}`,
        undefined,
        table,
      );
      assert.deepEqual(blob, { upstream, repository: name, kind: 'blob', digest: someDigest });
    }),
  );
});

test('a request with noise is a registry error or has a valid name, and nothing else', () => {
  const noise = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.webPath(),
    fc.constantFrom('..', '%2e%2e', '%', '%00', '//'),
  );
  fc.assert(
    fc.property(fc.array(noise, { maxLength: 6 }), noise, (parts, query) => {
      try {
        const request = parseRequest(`/v2/${parts.join('/')}/manifests/t?ns=${query}`, undefined, table);
        assert.ok(request.kind === 'ping' || parseRepository(request.repository) === request.repository);
        assert.ok(request.kind === 'ping' || !request.repository.includes('..'));
      } catch (error) {
        assert.ok(error instanceof RegistryError);
        assert.ok(error.status >= 400 && error.status < 500);
        assert.ok(!/[\n\r]/.test(error.message));
      }
    }),
    { numRuns: 500 },
  );
});

test('a range that can be satisfied is inside the blob, and its Content-Range gives it back', () => {
  const size = fc.integer({ min: 0, max: 10_000 });
  const edge = fc.option(fc.integer({ min: 0, max: 12_000 }), { nil: '' });
  fc.assert(
    fc.property(size, edge, edge, (bytes, first, last) => {
      const range = parseRange(`bytes=${first}-${last}`, bytes);
      if (typeof range === 'string') {
        assert.equal(range, 'unsatisfiable');
        return;
      }
      assert.ok(range.start >= 0 && range.start < range.end && range.end <= bytes);
      const [, start, end, total] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(formatContentRange(range, bytes)) ?? [];
      assert.deepEqual([Number(start), Number(end) + 1, Number(total)], [range.start, range.end, bytes]);
      if (first !== '') assert.equal(range.start, first);
      if (first !== '' && last !== '') assert.equal(range.end, Math.min(Number(last) + 1, bytes));
    }),
    { numRuns: 1000 },
  );
});

test('no Range, Accept or manifest throws, however strange it is', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.nat(), (text, size) => {
      parseRange(text, size);
      parseRange(`bytes=${text}`, size);
      acceptedManifestTypes(text);
      parseManifest(Buffer.from(text), text);
    }),
    { numRuns: 1000 },
  );
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      parseManifest(Buffer.from(JSON.stringify(value)), 'application/json');
      const layers = Array.isArray(value) ? value : [value];
      parseManifest(
        Buffer.from(JSON.stringify({ schemaVersion: 2, config: value, layers, manifests: layers })),
      );
    }),
    { numRuns: 500 },
  );
});

test('the order, case and repetition of the types in Accept make no difference', () => {
  const types = fc.subarray([
    'application/vnd.oci.image.index.v1+json',
    'application/vnd.docker.distribution.manifest.list.v2+json',
    'application/vnd.oci.image.manifest.v1+json',
    'application/vnd.docker.distribution.manifest.v2+json',
  ]);
  fc.assert(
    fc.property(types, fc.infiniteStream(fc.nat({ max: 3 })), (some, order) => {
      const shuffled = some.toSorted(() => (order.next().value ?? 0) - 1.5);
      const header = [...shuffled, ...shuffled].map((type) => `${type.toUpperCase()};q=0.5`).join(' , ');
      assert.deepEqual(acceptedManifestTypes(header), acceptedManifestTypes(some.join(',')));
    }),
  );
});
