import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestOf } from '../../src/oci/digest.ts';
import { formatImageName, parseImageName } from '../../src/oci/image-name.ts';

const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?$/);
const port = fc.integer({ min: 1, max: 65_535 }).map((number) => `:${number}`);
const host = fc.oneof(
  fc.array(label, { minLength: 2, maxLength: 4 }).map((labels) => labels.join('.')),
  fc.tuple(label, port).map((parts) => parts.join('')),
  fc.constantFrom('localhost', 'docker.io', '[::1]', '[fd00::1]:5000', '10.0.0.1:80'),
);
const component = fc.stringMatching(/^[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}$/);
const path = (minLength: number) =>
  fc.array(component, { minLength, maxLength: 4 }).map((parts) => parts.join('/'));
const tag = fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/);
const digest = fc.string().map((text) => digestOf(Buffer.from(text)));
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

test('a full name is read as its parts, and written as it was', () => {
  fc.assert(
    fc.property(
      host,
      path(2),
      optional(tag),
      optional(digest),
      (someHost, repository, someTag, someDigest) => {
        const text = [
          `${someHost}/${repository}`,
          someTag === undefined ? '' : `:${someTag}`,
          someDigest === undefined ? '' : `@${someDigest}`,
        ].join('');
        const name = parseImageName(text);
        assert.ok(name !== undefined, text);
        assert.deepEqual(
          { host: name.host, repository: name.repository, tag: name.tag, digest: name.digest },
          { host: someHost, repository, tag: someTag, digest: someDigest },
        );
        assert.equal(formatImageName(name), text);
      },
    ),
    { numRuns: 500 },
  );
});

test('a short name belongs to Docker Hub, and gets library/ if it has one part', () => {
  fc.assert(
    fc.property(path(1), optional(tag), (repository, someTag) => {
      const [first = ''] = repository.split('/');
      fc.pre(!repository.includes('/') || (!first.includes('.') && first !== 'localhost'));
      const name = parseImageName(`${repository}${someTag === undefined ? '' : `:${someTag}`}`);
      const official = repository.includes('/') ? '' : 'library/';
      assert.equal(name?.host, 'docker.io');
      assert.equal(name.repository, `${official}${repository}`);
      assert.equal(name.tag, someTag);
    }),
    { numRuns: 500 },
  );
});

test('any text that is a name has a full form that is the same name', () => {
  const noise = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('/', ':', '@', '.', '..', 'localhost', 'a', 'A', '[', ']', '5000'),
    digest,
  );
  let names = 0;
  fc.assert(
    fc.property(fc.array(noise, { maxLength: 8 }), (parts) => {
      const name = parseImageName(parts.join(''));
      if (name === undefined) return;
      names += 1;
      assert.deepEqual(parseImageName(formatImageName(name)), name);
    }),
    { numRuns: 5000 },
  );
  assert.ok(names > 50, `${names} names among the noise`);
});
