import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ruleProblems, type Surroundings } from '../../../src/access/rules/problems.ts';
import type { AccessRule } from '../../../src/access/rules/rule.ts';

const ISSUERS = {
  github: 'https://token.actions.githubusercontent.com',
  gitlab: 'https://gitlab.com',
  google: 'https://accounts.google.com',
  azure: 'https://login.microsoftonline.com/common/v2.0',
  k8s: 'https://kubernetes.default.svc',
};
const ALL: Surroundings = {
  upstreams: new Map([
    ['docker.io', 'docker.io'],
    ['index.docker.io', 'docker.io'],
    ['localhost:5001', 'localhost:5001'],
  ]),
  users: true,
  tokens: true,
  certificates: true,
  issuers: Object.entries(ISSUERS).map(([name, issuer]) => ({ name, issuer })),
};
const NONE: Surroundings = { ...ALL, users: false, tokens: false, certificates: false, issuers: [] };

/** `severity path: message` of each problem of one rule. */
function problems(rule: AccessRule, surroundings: Partial<Surroundings> = {}): string[] {
  return ruleProblems([rule], { ...ALL, ...surroundings }).map(
    ({ severity, path, message }) => `${severity} ${path.slice(1).join('.')}: ${message}`,
  );
}

function assertOne(found: string[], expected: RegExp): void {
  assert.equal(found.length, 1, found.join('\n'));
  assert.match(found[0] ?? '', expected);
}

test('rules that can decide have no problem', () => {
  const rules: AccessRule[] = [
    { who: 'anonymous', network: '10.0.0.0/8', pull: ['docker.io/library/*'] },
    { who: ['user:*', 'token:ci-team'], pull: ['index.docker.io/*', 'localhost:5001/a.b/c_d', '*'] },
    { who: 'oidc:github', claims: { repository_owner_id: '123456', ref: 'refs/heads/*' }, pull: '*/acme/*' },
    { who: ['oidc:google'], claims: { sub: ['1', '2'] }, pull: 'docker.io/*' },
    { who: 'oidc:k8s', claims: { sub: 'system:serviceaccount:ci:*' }, pull: 'docker.io/*' },
    { who: 'certificate:DNS:build-*.corp.example', pull: ['*'], fetch: false },
    { who: 'user:ops', network: ['::ffff:10.0.0.0/104', 'fd00::1'], operate: true, observe: ['docker*'] },
  ];
  assert.deepEqual(ruleProblems(rules, ALL), []);
});

test('a problem says where it is', () => {
  const rules: AccessRule[] = [
    { who: 'anonymous', pull: '*' },
    { who: ['anonymous', 'bob'], network: ['10.0.0.0/8', 'x'], operate: ['*', 'quay.io/*'] },
    { who: 'bob', network: 'x', observe: 'quay.io/*' },
  ];
  assert.deepEqual(
    ruleProblems(rules, ALL).map(({ path }) => path),
    [
      [1, 'who', 1],
      [1, 'network', 1],
      [1, 'operate', 1],
      [2, 'who'],
      [2, 'network'],
      [2, 'observe'],
    ],
  );
});

suite('a pattern that can never match is an error', () => {
  for (const [pattern, message] of [
    ['quay.io/org/*', /error pull: the registry "quay\.io" is not configured: add it under upstreams/],
    ['quay.io*', /no registry of upstreams begins with "quay\.io"/],
    ['Docker.io/library/*', /the registry "Docker\.io" is not configured/],
    ['docker.io', /"docker\.io" has no repository/],
    ['docker.io/alpine', /on Docker Hub it is docker\.io\/library\/alpine/],
    ['index.docker.io/alpine', /on Docker Hub it is index\.docker\.io\/library\/alpine/],
    ['docker.io/library/alpine:3.20', /has a tag or digest/],
    ['docker.io/library/*@sha256:*', /has a tag or digest/],
    ['docker.io/Acme/*', /matches no repository/],
    ['docker.io/acme/', /matches no repository/],
    ['docker.io/', /matches no repository/],
    ['', /has no repository/],
  ] as const) {
    test(JSON.stringify(pattern), () => {
      assertOne(problems({ who: 'anonymous', pull: pattern }), message);
    });
  }
});

suite('a rule that can never decide is an error', () => {
  const never: [string, AccessRule, RegExp, Surroundings?][] = [
    ['nothing is allowed', { who: 'anonymous' }, /^error : allows nothing: add pull, operate or observe/],
    ['no pattern', { who: 'anonymous', pull: [], operate: [] }, /allows nothing/],
    ['nobody is named', { who: [], pull: '*' }, /^error who: names nobody/],
    ['an empty network', { who: 'anonymous', network: [], pull: '*' }, /^error network: is empty/],
    [
      'a network that is none',
      { who: 'anonymous', network: '10.0.0.0/33', pull: '*' },
      /must be an address or a network/,
    ],
    ['a who without its kind', { who: 'ops', pull: '*' }, /must be anonymous, \*, user:NAME/],
    [
      'a certificate without the kind of its name',
      { who: 'certificate:build-1', pull: '*' },
      /certificate:CN=…/,
    ],
    ['a wildcard of kinds', { who: 'u*', pull: '*' }, /must be anonymous/],
    ['users without a file', { who: 'user:*', pull: '*' }, /user:\* matches nobody.*access\.users/, NONE],
    ['tokens without a file', { who: 'token:x', pull: '*' }, /token:x matches nobody.*access\.tokens/, NONE],
    ['certificates that nobody asks for', { who: 'certificate:CN=x', pull: '*' }, /clientCa/, NONE],
    ['tokens without an issuer', { who: 'oidc:x', claims: { sub: 'a' }, pull: '*' }, /access\.oidc/, NONE],
    ['anybody known, where nobody can be', { who: '*', pull: '*' }, /no login is configured/, NONE],
    [
      'another issuer',
      { who: 'oidc:circle', claims: { sub: 'a' }, pull: '*' },
      /is not one of the issuers.*: github, gitlab/,
    ],
    [
      'claims of a user',
      { who: 'user:x', claims: { sub: 'a' }, pull: '*' },
      /^error who: user:x has no claims/,
    ],
    ['claims of anonymous', { who: 'anonymous', claims: { sub: 'a' }, pull: '*' }, /anonymous has no claims/],
    [
      'no value of a claim',
      { who: 'oidc:k8s', claims: { sub: 'a', x: [] }, pull: '*' },
      /^error claims\.x: is empty/,
    ],
    [
      'the number of what is a string',
      { who: 'oidc:github', claims: { repository_owner_id: 123456 }, pull: '*' },
      /^error claims\.repository_owner_id: is a string in the tokens of GitHub Actions.*write '123456'/,
    ],
  ];
  for (const [what, rule, message, surroundings] of never) {
    test(what, () => assertOne(problems(rule, surroundings), message));
  }

  test('where one of several who cannot be', () => {
    const rule: AccessRule = { who: ['oidc:k8s', 'user:x'], claims: { sub: 'a' }, pull: '*' };
    assertOne(problems(rule), /^error who\.1: user:x has no claims/);
  });
});

suite('a rule for an issuer without claims is an error', () => {
  for (const [name, message] of [
    ['github', /GitHub Actions\) without claims lets in everybody.*repository_owner_id or repository_id/],
    ['gitlab', /GitLab\.com\) without claims lets in everybody.*project_id or namespace_id/],
    ['google', /Google\) without claims lets in everybody.* sub,/],
    ['azure', /Azure\) without claims lets in everybody.*tid together with sub/],
    ['k8s', /oidc:k8s without claims lets in anyone who gets a token there/],
  ] as const) {
    const error = new RegExp(`^error \\w+: .*${message.source}.* or everyone: true to the issuer`);
    const who = `oidc:${name}`;

    test(name, () => {
      assertOne(problems({ who, pull: '*' }), error);
      assertOne(problems({ who, claims: {}, pull: '*' }), error);
    });

    test(`${name}, and when its claims are those of every token`, () => {
      assertOne(problems({ who, claims: { sub: '*', aud: 'millpond', iss: 'x' }, pull: '*' }), error);
      assertOne(problems({ who, claims: { sub: ['a', '**'] }, pull: '*' }), error);
    });

    test(`${name}, unless everyone is meant`, () => {
      const issuers = ALL.issuers.map((issuer) => ({ ...issuer, everyone: true }));
      assert.deepEqual(problems({ who, pull: '*' }, { issuers }), []);
    });
  }

  test('also where a wildcard means it: oidc:* and * are every issuer', () => {
    for (const who of ['oidc:*', '*']) {
      assert.equal(problems({ who, pull: '*' }).filter((text) => text.startsWith('error')).length, 5);
    }
    assertOne(
      problems({ who: '*', pull: '*' }, { issuers: [{ name: 'k8s', issuer: ISSUERS.k8s }] }),
      /oidc:k8s/,
    );
    assert.deepEqual(problems({ who: '*', pull: '*' }, { issuers: [] }), []);
  });

  test('and of an enterprise below that of GitHub', () => {
    const issuers = [{ name: 'acme', issuer: `${ISSUERS.github}/acme` }];
    assertOne(problems({ who: 'oidc:acme', pull: '*' }, { issuers }), /GitHub Actions/);
    const other = [{ name: 'acme', issuer: `${ISSUERS.github}.evil.example` }];
    assertOne(problems({ who: 'oidc:acme', pull: '*' }, { issuers: other }), /anyone who gets a token there/);
  });
});

suite('a warning', () => {
  const claims = (value: Record<string, string>, who = 'oidc:k8s') =>
    problems({ who, claims: value, pull: '*' });

  test('about a claim that others can make up a name for', () => {
    assertOne(
      claims({ sub: 'repo:acme*' }),
      /^warning claims\.sub: "repo:acme\*" also matches longer names that begin with repo:acme/,
    );
    assertOne(claims({ sub: 'repo:acme/app-*:ref:x' }), /begin with repo:acme\/app-:/);
    assertOne(claims({ email: '*corp.example' }), /also matches longer names that end with corp\.example/);
    assert.deepEqual(claims({ sub: 'repo:acme/*' }), []);
    assert.deepEqual(claims({ sub: 'repo:acme/app:*' }), []);
    assert.deepEqual(claims({ email: '*@corp.example' }), []);
  });

  test('about claims that do not say whose a public token is', () => {
    assertOne(
      claims({ ref: 'refs/heads/main' }, 'oidc:github'),
      /^warning claims: none of these claims says whose token of GitHub Actions.*repository_owner_id/,
    );
    assert.deepEqual(claims({ ref: 'refs/heads/main' }, 'oidc:k8s'), []);
  });

  test('about fetch where nothing is pulled', () => {
    assertOne(
      problems({ who: 'user:x', operate: true, fetch: false }),
      /^warning fetch: says nothing without pull/,
    );
  });
});
