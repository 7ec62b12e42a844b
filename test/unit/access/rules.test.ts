import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { AccessRules } from '../../../src/access/rules/access-rules.ts';
import type { Asker, CertificateIdentity, OidcIdentity } from '../../../src/access/rules/identities.ts';
import type { AccessRule, Right } from '../../../src/access/rules/rule.ts';

const UPSTREAMS = new Map([
  ['docker.io', 'docker.io'],
  ['index.docker.io', 'docker.io'],
  ['ghcr.io', 'ghcr.io'],
  ['registry.corp.example', 'registry.corp.example'],
  ['hub.corp.example:5000', 'registry.corp.example'],
]);

const EXAMPLE: AccessRule[] = [
  { who: 'anonymous', network: '10.0.0.0/8', pull: ['docker.io/library/*'] },
  { who: ['user:*', 'token:ci-team'], pull: ['docker.io/*', 'ghcr.io/acme/*'] },
  { who: 'oidc:github', claims: { repository_owner_id: '123456' }, pull: ['registry.corp.example/acme/*'] },
  { who: 'certificate:DNS:build-*.corp.example', pull: ['*'], fetch: false },
  { who: 'user:ops', pull: ['*'], operate: true, observe: true },
];

const BOB: Asker = { credentials: { kind: 'user', name: 'bob' } };
const OPS: Asker = { credentials: { kind: 'user', name: 'ops' } };
const BUILD: CertificateIdentity = { kind: 'certificate', names: ['CN=x', 'DNS:build-1.corp.example'] };

function workflow(claims: Record<string, unknown>, name = 'github'): OidcIdentity {
  return { kind: 'oidc', name, claims };
}

/** @param image `upstream/repository` */
function decide(rules: AccessRule[], asker: Asker, image?: string, right: Right = 'pull') {
  return new AccessRules(rules, UPSTREAMS).decide(
    asker,
    right,
    image === undefined ? undefined : target(image),
  );
}

function target(image: string) {
  const slash = image.indexOf('/');
  return { upstream: image.slice(0, slash), repository: image.slice(slash + 1) };
}

suite('rules', () => {
  test('refuse what none of them allows: nobody should log in, somebody may not', () => {
    assert.deepEqual(decide([], {}, 'docker.io/library/alpine'), { allowed: false, somebody: false });
    assert.deepEqual(decide(EXAMPLE, BOB, 'ghcr.io/other/app'), { allowed: false, somebody: true });
  });

  test('allow what one of them allows, and say which and by what identity', () => {
    assert.deepEqual(decide(EXAMPLE, BOB, 'ghcr.io/acme/app'), {
      allowed: true,
      rule: 1,
      kind: 'user',
      fetch: true,
    });
    assert.equal(
      decide(EXAMPLE, { credentials: { kind: 'token', name: 'ci-team' } }, 'ghcr.io/acme/a').allowed,
      true,
    );
    assert.equal(
      decide(EXAMPLE, { credentials: { kind: 'token', name: 'other' } }, 'ghcr.io/acme/a').allowed,
      false,
    );
  });

  test('let everybody on a network do what anonymous may do there, with any credentials', () => {
    const image = 'docker.io/library/alpine';
    for (const identity of [{}, BOB, { certificate: BUILD }, { credentials: workflow({}) }]) {
      assert.equal(decide(EXAMPLE.slice(0, 1), { ...identity, address: '10.1.2.3' }, image).allowed, true);
      assert.equal(decide(EXAMPLE.slice(0, 1), { ...identity, address: '11.1.2.3' }, image).allowed, false);
      assert.equal(decide(EXAMPLE.slice(0, 1), identity, image).allowed, false, 'the address is not known');
    }
  });

  test('with a network hold for others there, too, and only there', () => {
    const rules: AccessRule[] = [{ who: 'user:bob', network: ['fd00::/8', '10.0.0.0/8'], pull: '*' }];
    assert.equal(decide(rules, { ...BOB, address: 'fd00::1' }, 'ghcr.io/a/b').allowed, true);
    assert.equal(decide(rules, { ...BOB, address: '192.168.0.1' }, 'ghcr.io/a/b').allowed, false);
    assert.equal(decide(rules, BOB, 'ghcr.io/a/b').allowed, false);
    assert.equal(decide(rules, { address: '10.0.0.1' }, 'ghcr.io/a/b').allowed, false);
  });

  test('that name * mean everybody who is known, and not anonymous', () => {
    const rules: AccessRule[] = [{ who: '*', pull: '*' }];
    assert.equal(decide(rules, {}, 'ghcr.io/a/b').allowed, false);
    for (const asker of [BOB, { certificate: BUILD }, { credentials: workflow({}) }]) {
      assert.equal(decide(rules, asker, 'ghcr.io/a/b').allowed, true);
    }
  });

  test('keep the kinds of names apart: a user called as a token is not the token', () => {
    const rules: AccessRule[] = [{ who: ['token:ci', 'certificate:CN=ci', 'oidc:ci'], pull: '*' }];
    assert.equal(decide(rules, { credentials: { kind: 'user', name: 'ci' } }, 'ghcr.io/a/b').allowed, false);
    assert.equal(
      decide(rules, { credentials: { kind: 'user', name: 'token:ci' } }, 'ghcr.io/a/b').allowed,
      false,
    );
    assert.equal(
      decide(rules, { credentials: { kind: 'user', name: 'anonymous' } }, 'ghcr.io/a/b').allowed,
      false,
    );
    assert.equal(decide(rules, { credentials: { kind: 'token', name: 'ci' } }, 'ghcr.io/a/b').allowed, true);
  });

  test('compare the names of certificates whole', () => {
    const named = (who: string, ...names: string[]) =>
      decide([{ who, pull: '*' }], { certificate: { kind: 'certificate', names } }, 'ghcr.io/a/b').allowed;
    assert.equal(named('certificate:CN=build-1', 'CN=build-1'), true);
    assert.equal(named('certificate:CN=build-1', 'CN=evil,CN=build-1'), false);
    assert.equal(named('certificate:CN=build-1', 'CN=build-10'), false);
    assert.equal(named('certificate:CN=build-1', 'DNS:build-1'), false);
    assert.equal(
      named('certificate:DNS:*.corp.example', 'DNS:a.corp.example.evil', 'CN=a.corp.example'),
      false,
    );
    assert.equal(named('certificate:*', 'URI:spiffe://corp/x'), true);
  });

  test('with patterns of an alias mean its upstream, and * crosses slashes', () => {
    const rules: AccessRule[] = [
      { who: 'anonymous', pull: ['hub.corp.example:5000/acme/*', 'index.docker.io/*'] },
    ];
    assert.equal(decide(rules, {}, 'registry.corp.example/acme/a/b/c').allowed, true);
    assert.equal(decide(rules, {}, 'docker.io/library/alpine').allowed, true);
    assert.equal(decide(rules, {}, 'registry.corp.example/acme').allowed, false);
    assert.equal(decide(rules, {}, 'registry.corp.example/acme-evil/app').allowed, false);
    assert.equal(decide(rules, {}, 'ghcr.io/registry.corp.example/acme/app').allowed, false);
  });

  test('that cannot be read allow nothing', () => {
    for (const who of [
      '',
      'user:',
      'user',
      'anonymous*',
      'a*',
      'group:ops',
      'certificate:build-1',
      'certificate:O*',
    ]) {
      assert.equal(
        decide([{ who, pull: '*' }], { ...BOB, certificate: BUILD }, 'ghcr.io/a/b').allowed,
        false,
        who,
      );
    }
  });

  test('do not let a pull say anything about operating or observing, nor these about a pull', () => {
    const rules: AccessRule[] = [
      { who: 'user:bob', pull: '*' },
      { who: 'user:ops', operate: true, observe: ['ghcr.io/*'] },
    ];
    const may = (asker: Asker, right: Right) => decide(rules, asker, 'ghcr.io/a/b', right).allowed;
    assert.deepEqual([may(BOB, 'pull'), may(BOB, 'operate'), may(BOB, 'observe')], [true, false, false]);
    assert.deepEqual([may(OPS, 'pull'), may(OPS, 'operate'), may(OPS, 'observe')], [false, true, true]);
  });

  test('let patterns never stand for the mirror as a whole: seal and scrub need true', () => {
    const rules: AccessRule[] = [
      { who: 'user:bob', pull: '*', operate: '*', observe: '*' },
      { who: 'user:ops', operate: true },
    ];
    assert.equal(decide(rules, BOB, undefined, 'operate').allowed, false);
    assert.equal(decide(rules, BOB, undefined, 'pull').allowed, false);
    assert.equal(decide(rules, BOB, 'ghcr.io/a/b', 'operate').allowed, true);
    assert.equal(decide(rules, OPS, undefined, 'operate').allowed, true);
    assert.equal(decide(rules, OPS, undefined, 'observe').allowed, false);
  });
});

suite('fetch: false', () => {
  const image = 'ghcr.io/a/b';
  const onlyCached: AccessRule = { who: 'certificate:*', pull: '*', fetch: false };

  test('lets one have only what is cached', () => {
    const decision = decide([onlyCached], { certificate: BUILD }, image);
    assert.deepEqual(decision, { allowed: true, rule: 0, kind: 'certificate', fetch: false });
    assert.equal(decide([onlyCached], { certificate: BUILD }, image, 'fetch').allowed, false);
  });

  test('takes nothing away that another rule allows, whichever stands first', () => {
    const more: AccessRule = { who: 'anonymous', pull: '*' };
    for (const rules of [
      [onlyCached, more],
      [more, onlyCached],
    ]) {
      const decision = decide(rules, { certificate: BUILD }, image);
      assert.deepEqual(decision, {
        allowed: true,
        rule: rules.indexOf(more),
        kind: 'anonymous',
        fetch: true,
      });
      assert.equal(decide(rules, { certificate: BUILD }, image, 'fetch').allowed, true);
    }
  });
});

suite('claims of a rule', () => {
  const rules: AccessRule[] = [
    { who: 'oidc:github', claims: { owner: '1', ref: ['main', 'v*'] }, pull: '*' },
  ];
  const may = (credentials: Asker['credentials']) => decide(rules, { credentials }, 'ghcr.io/a/b').allowed;

  test('must all hold, in a token of that issuer', () => {
    assert.equal(may(workflow({ owner: '1', ref: 'main' })), true);
    assert.equal(may(workflow({ owner: '1', ref: 'v1.2' })), true);
    assert.equal(may(workflow({ owner: '1' })), false);
    assert.equal(may(workflow({ owner: '2', ref: 'main' })), false);
    assert.equal(may(workflow({ owner: '1', ref: 'main' }, 'gitlab')), false);
  });

  test('are never those of a login without claims', () => {
    const withUser: AccessRule[] = [{ who: ['user:bob', 'anonymous'], claims: {}, pull: '*' }];
    assert.equal(decide(withUser, BOB, 'ghcr.io/a/b').allowed, true);
    const asking: AccessRule[] = [{ who: ['user:bob', 'anonymous', '*'], claims: { owner: '1' }, pull: '*' }];
    assert.equal(decide(asking, { ...BOB, certificate: BUILD }, 'ghcr.io/a/b').allowed, false);
  });

  test('are told, so that a session keeps only these', () => {
    const asked = new AccessRules(
      [
        ...rules,
        { who: 'oidc:git*', claims: { owner: '2', job: true }, pull: '*' },
        { who: 'oidc:k8s', pull: '*' },
      ],
      UPSTREAMS,
    );
    assert.deepEqual(asked.claimsAskedOf('github'), ['owner', 'ref', 'job']);
    assert.deepEqual(asked.claimsAskedOf('gitlab'), ['owner', 'job']);
    assert.deepEqual(asked.claimsAskedOf('k8s'), []);
  });
});

suite('a refusal concerns somebody', () => {
  const rules = new AccessRules(
    [{ who: 'certificate:CN=a', network: '10.0.0.0/8', pull: 'ghcr.io/a/*' }],
    UPSTREAMS,
  );
  const certificate = (name: string): CertificateIdentity => ({ kind: 'certificate', names: [name] });

  test('with any credentials, and with a certificate only if a rule names it', () => {
    assert.equal(rules.isSomebody({}), false);
    assert.equal(rules.isSomebody({ address: '10.0.0.1' }), false);
    assert.equal(rules.isSomebody(BOB), true);
    assert.equal(rules.isSomebody({ certificate: certificate('CN=a') }), true, 'on whatever network');
    assert.equal(rules.isSomebody({ certificate: certificate('CN=b') }), false, 'it may still log in');
  });

  test('and says so', () => {
    const image = target('ghcr.io/b/c');
    assert.deepEqual(rules.decide({ certificate: certificate('CN=a') }, 'pull', image), {
      allowed: false,
      somebody: true,
    });
    assert.deepEqual(rules.decide({ certificate: certificate('CN=b') }, 'pull', image), {
      allowed: false,
      somebody: false,
    });
  });
});

test('whether there is anything to pull depends on who asks, and from where', () => {
  const rules = new AccessRules(
    [
      { who: 'anonymous', network: '10.0.0.0/8', pull: 'ghcr.io/a/*' },
      { who: 'user:bob', pull: 'ghcr.io/b/*' },
      { who: 'user:ops', pull: [], operate: true },
    ],
    UPSTREAMS,
  );
  assert.equal(rules.mayDoSomething({ address: '10.0.0.1' }, 'pull'), true);
  assert.equal(rules.mayDoSomething({ address: '11.0.0.1' }, 'pull'), false);
  assert.equal(rules.mayDoSomething({}, 'pull'), false);
  assert.equal(rules.mayDoSomething(BOB, 'pull'), true);
  assert.equal(rules.mayDoSomething(OPS, 'pull'), false);
});

suite('an explanation', () => {
  const rules: AccessRule[] = [
    ...EXAMPLE,
    { who: 'user:bob', network: '10.0.0.0/8', pull: 'ghcr.io/*' },
    { who: 'user:*', pull: 'ghcr.io/b/*', fetch: false, operate: ['ghcr.io/*'] },
  ];
  const explain = (asker: Asker, right: Right, image?: string) => {
    const explanation = new AccessRules(rules, UPSTREAMS).explain(
      asker,
      right,
      image === undefined ? undefined : target(image),
    );
    return explanation.rules.map(({ allows, decides, whyNot }) =>
      decides ? 'DECIDES' : allows ? 'ALLOWS' : whyNot,
    );
  };

  test('says for each rule why it does not allow the request, and which one decides', () => {
    assert.deepEqual(explain({ ...BOB, address: '192.168.0.1' }, 'pull', 'ghcr.io/acme/app'), [
      '192.168.0.1 is not in its network',
      'DECIDES',
      'it does not name user:bob or anonymous',
      'it does not name user:bob or anonymous',
      'it does not name user:bob or anonymous',
      '192.168.0.1 is not in its network',
      'no pattern of its pull matches ghcr.io/acme/app',
    ]);
    assert.deepEqual(explain({ credentials: workflow({}) }, 'pull', 'registry.corp.example/acme/app'), [
      "it needs a network, and the client's address is not known",
      'it does not name oidc:github or anonymous',
      'the claim repository_owner_id is missing or differs',
      ...Array<string>(4).fill('it does not name oidc:github or anonymous'),
    ]);
    assert.equal(explain(OPS, 'pull', 'ghcr.io/b/c')[6], 'ALLOWS');
    assert.deepEqual(explain(OPS, 'fetch', 'ghcr.io/b/c').slice(4, 7), [
      'DECIDES',
      'it does not name user:ops or anonymous',
      'it allows only what is cached (fetch: false)',
    ]);
    assert.deepEqual(explain(BOB, 'operate').slice(5), [
      "it needs a network, and the client's address is not known",
      'it needs operate: true, because this is not about one image',
    ]);
    assert.equal(explain(BOB, 'observe', 'ghcr.io/b/c')[1], 'it has no observe');
    assert.equal(explain(BOB, 'fetch', 'quay.io/b/c')[1], 'no pattern of its pull matches quay.io/b/c');
  });
});
