import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import * as fc from 'fast-check';
import { parseChallenges } from '../../src/upstream/auth/challenge.ts';

const MAX_HEADER_LENGTH = 32 * 1024;
/** Linear reading takes a few milliseconds; reading the rest again for every word takes thousands. */
const SECONDS_FOR_ANY_HEADER = 0.5;

interface Written {
  text: string;
  scheme: string;
  parameters: Record<string, string>;
}

/** As a test compares it. */
function read(header: string | string[] | undefined): [string, Record<string, string>][] {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

function caseOf(word: string): fc.Arbitrary<string> {
  return fc
    .array(fc.boolean(), { minLength: word.length, maxLength: word.length })
    .map((upper) => Array.from(word, (letter, at) => (upper[at] ? letter.toUpperCase() : letter)).join(''));
}

function charactersOf(characters: string, constraints: fc.StringConstraints = {}): fc.Arbitrary<string> {
  return fc.string({ unit: fc.constantFrom(...characters.split('')), ...constraints });
}

const name = fc.constantFrom('realm', 'service', 'scope', 'error', 'error_description', 'x-y.z');
const quotedValue = charactersOf('abcXYZ019:/.-_ ,=?&"\\', { maxLength: 40 });
const bareValue = charactersOf('abcXYZ019:/.-_', { minLength: 1, maxLength: 40 });
const space = fc.constantFrom('', ' ', '\t', '  ');

const parameter = fc
  .record({ name: name.chain((word) => caseOf(word)), before: space, after: space })
  .chain(({ name, before, after }) =>
    fc
      .oneof(
        quotedValue.map((value) => ({ value, text: `"${value.replace(/["\\]/g, '\\$&')}"` })),
        bareValue.map((value) => ({ value, text: value })),
      )
      .map(({ value, text }) => ({ name, value, text: `${name}${before}=${after}${text}` })),
  );

const comma = fc.tuple(space, space).map((around) => around.join(','));

const withParameters: fc.Arbitrary<Written> = fc
  .record({
    scheme: fc.constantFrom('bearer', 'basic', 'digest', 'negotiate').chain((word) => caseOf(word)),
    parameters: fc.uniqueArray(parameter, { selector: (one) => one.name.toLowerCase(), maxLength: 6 }),
    comma,
  })
  .map(({ scheme, parameters, comma }) => ({
    text: [scheme, parameters.map(({ text }) => text).join(comma)].filter((part) => part !== '').join(' '),
    scheme: scheme.toLowerCase(),
    parameters: Object.fromEntries(parameters.map(({ name, value }) => [name.toLowerCase(), value])),
  }));

const withToken68: fc.Arbitrary<Written> = fc
  .record({
    scheme: fc.constantFrom('Negotiate', 'NTLM'),
    token: charactersOf('abcXYZ019-._~+/', { minLength: 1, maxLength: 30 }),
    padding: fc.constantFrom('', '=', '=='),
  })
  .map(({ scheme, token, padding }) => ({
    text: `${scheme} ${token}${padding}`,
    scheme: scheme.toLowerCase(),
    parameters: {},
  }));

const line = fc
  .tuple(fc.array(fc.oneof(withParameters, withToken68), { minLength: 1, maxLength: 4 }), comma)
  .map(([challenges, comma]) => ({ text: challenges.map(({ text }) => text).join(comma), challenges }));

function expected(challenges: Written[]): [string, Record<string, string>][] {
  return challenges.map(({ scheme, parameters }) => [scheme, parameters]);
}

test('a challenge that was written is read as it was meant, however it was written', () => {
  fc.assert(fc.property(line, ({ text, challenges }) => assert.deepEqual(read(text), expected(challenges))));
});

test('challenges in several header lines are read in their order', () => {
  fc.assert(
    fc.property(fc.array(line, { maxLength: 3 }), (lines) => {
      const header = lines.map(({ text }) => text);
      const all = lines.flatMap(({ challenges }) => challenges);
      assert.deepEqual(read(header), expected(all));
    }),
  );
});

test('noise is read as something or nothing, and nothing is thrown', () => {
  const noise = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    charactersOf('Bearer realm="\\,= \t', { maxLength: 200 }),
  );
  fc.assert(
    fc.property(noise, (text) => {
      for (const { scheme, parameters } of parseChallenges(text)) {
        assert.match(scheme, /^[^\sA-Z,="]+$/);
        for (const name of parameters.keys()) assert.match(name, /^[^\sA-Z,="]+$/);
      }
    }),
  );
});

test('what stands before a challenge does not hide it', () => {
  fc.assert(
    fc.property(withParameters, comma, (challenge, comma) => {
      const text = `Basic realm="a, b \\"c\\"", charset="UTF-8"${comma}${challenge.text}`;
      assert.deepEqual(read(text).at(-1), [challenge.scheme, challenge.parameters]);
    }),
  );
});

test('no header, however long and malicious, keeps the mirror busy', () => {
  for (const piece of ['a/', 'a ', 'a=', 'a="', 'a=\\"', '"', '\\', ',', 'a b==x ', 'a=b,']) {
    const header = `${piece.repeat(MAX_HEADER_LENGTH / piece.length)}"`;
    const startedAt = performance.now();
    parseChallenges(header);
    const seconds = (performance.now() - startedAt) / 1000;
    assert.ok(seconds < SECONDS_FOR_ANY_HEADER, `${piece} repeated took ${seconds} s`);
  }
});

suite('what real registries send', () => {
  const examples: [string, string | string[] | undefined, [string, Record<string, string>][]][] = [
    [
      'Docker Hub',
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:library/alpine:pull',
          },
        ],
      ],
    ],
    [
      'Docker Hub, of a token that does not suffice',
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="insufficient_scope"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:a/b:pull,push',
            error: 'insufficient_scope',
          },
        ],
      ],
    ],
    [
      'Quay: Basic and Bearer in one line',
      'Basic realm="quay.io", Bearer realm="https://quay.io/v2/auth",service="quay.io"',
      [
        ['basic', { realm: 'quay.io' }],
        ['bearer', { realm: 'https://quay.io/v2/auth', service: 'quay.io' }],
      ],
    ],
    [
      'the same in two lines',
      ['Basic realm="quay.io"', 'Bearer realm="https://quay.io/v2/auth",service="quay.io"'],
      [
        ['basic', { realm: 'quay.io' }],
        ['bearer', { realm: 'https://quay.io/v2/auth', service: 'quay.io' }],
      ],
    ],
    [
      'a bare service',
      'Bearer realm="https://gcr.io/v2/token",service=gcr.io',
      [['bearer', { realm: 'https://gcr.io/v2/token', service: 'gcr.io' }]],
    ],
    [
      'a bare realm, slashes and all',
      'bearer realm=https://gcr.io/v2/token?a=b,service=gcr.io',
      [['bearer', { realm: 'https://gcr.io/v2/token?a=b', service: 'gcr.io' }]],
    ],
    [
      'Artifact Registry: no service',
      'Bearer realm="https://europe-docker.pkg.dev/v2/token"',
      [['bearer', { realm: 'https://europe-docker.pkg.dev/v2/token' }]],
    ],
    [
      'nvcr.io: an empty scope',
      'Bearer realm="https://nvcr.io/proxy_auth",scope=""',
      [['bearer', { realm: 'https://nvcr.io/proxy_auth', scope: '' }]],
    ],
    [
      'GitLab: a service that is no host',
      'Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",scope="repository:g/p:pull",error="invalid_token"',
      [
        [
          'bearer',
          {
            realm: 'https://gitlab.com/jwt/auth',
            service: 'container_registry',
            scope: 'repository:g/p:pull',
            error: 'invalid_token',
          },
        ],
      ],
    ],
    [
      'ECR',
      'Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"',
      [['basic', { realm: 'https://1.dkr.ecr.eu-west-1.amazonaws.com/', service: 'ecr.amazonaws.com' }]],
    ],
    ['a scheme alone', 'Negotiate', [['negotiate', {}]]],
    ['nothing', undefined, []],
    ['an empty header', '', []],
  ];
  for (const [registry, header, challenges] of examples) {
    test(registry, () => assert.deepEqual(read(header), challenges));
  }
});
