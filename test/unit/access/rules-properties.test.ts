import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AccessRules } from '../../../src/access/rules/access-rules.ts';
import type { Asker, Identity } from '../../../src/access/rules/identities.ts';
import type { AccessRule, Right, Target } from '../../../src/access/rules/rule.ts';

const UPSTREAMS = new Map([
  ['a.io', 'a.io'],
  ['alias.io', 'a.io'],
  ['b.io', 'b.io'],
]);
const RIGHTS = ['pull', 'fetch', 'operate', 'observe'] as const;

// Few values, so that rules and requests meet often.
const name = fc.constantFrom('ci', 'ci-2', 'ops');
const who = fc.oneof(
  fc.constantFrom('anonymous', '*'),
  fc
    .tuple(fc.constantFrom('user', 'token', 'oidc'), fc.constantFrom('ci', 'ops', 'ci*', '*'))
    .map(([kind, pattern]) => `${kind}:${pattern}`),
  fc.constantFrom('certificate:CN=ci', 'certificate:DNS:ci*', 'certificate:*'),
);
const claim = fc.constantFrom<(string | number)[]>('1', 1, '2');
const patterns = fc.oneof(
  fc.constantFrom('*', 'a.io/*', 'alias.io/x/*', 'b.io/x/y', '*/x/*'),
  fc.array(fc.constantFrom('a.io/x/y', 'b.io/*', 'alias.io/z/*'), { maxLength: 2 }),
);
const rule: fc.Arbitrary<AccessRule> = fc.record(
  {
    who: fc.oneof(who, fc.array(who, { maxLength: 3 })),
    network: fc.constantFrom('10.0.0.0/8', ['10.1.0.0/16', 'fd00::/8']),
    claims: fc.record(
      { owner: claim, ref: fc.constantFrom('main', 'v*', ['main', 'v*']) },
      { requiredKeys: [] },
    ),
    pull: patterns,
    fetch: fc.boolean(),
    operate: fc.oneof(fc.constant(true as const), patterns),
    observe: fc.oneof(fc.constant(true as const), patterns),
  },
  { requiredKeys: ['who'] },
);
const rules = fc.array(rule, { maxLength: 6 });

const claims = fc.record(
  { owner: fc.oneof(claim, fc.array(claim, { maxLength: 2 })), ref: fc.constantFrom('main', 'v1', 'x') },
  { requiredKeys: [] },
);
const asker: fc.Arbitrary<Asker> = fc.record(
  {
    credentials: fc.oneof(
      fc.record({ kind: fc.constantFrom('user' as const, 'token' as const), name }),
      fc.record({ kind: fc.constant('oidc' as const), name, claims }),
    ),
    certificate: fc.record({
      kind: fc.constant('certificate' as const),
      names: fc.uniqueArray(fc.constantFrom('CN=ci', 'CN=ops', 'DNS:ci-2'), { minLength: 1, maxLength: 2 }),
    }),
    address: fc.constantFrom('10.0.0.1', '10.1.2.3', '192.168.0.1', 'fd00::1', '2001:db8::1'),
  },
  { requiredKeys: [] },
);
const target: fc.Arbitrary<Target> = fc.record({
  upstream: fc.constantFrom('a.io', 'b.io'),
  repository: fc.constantFrom('x/y', 'x/y/z', 'z/x', 'ci'),
});
const request = fc.tuple(asker, fc.constantFrom(...RIGHTS), fc.option(target, { nil: undefined }));

function decide(list: readonly AccessRule[], [who, right, what]: [Asker, Right, Target | undefined]) {
  return new AccessRules(list, UPSTREAMS).decide(who, right, what);
}

const IN_NETWORK: Record<string, string[]> = {
  '10.0.0.1': ['10.0.0.0/8'],
  '10.1.2.3': ['10.0.0.0/8', '10.1.0.0/16'],
  'fd00::1': ['fd00::/8'],
};

function listOf<T>(value: T | readonly T[] | undefined): readonly T[] {
  return value === undefined ? [] : Array.isArray(value) ? (value as readonly T[]) : [value as T];
}

function glob(pattern: string, text: string): boolean {
  return new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(text);
}

/** The text of the issue, put down as simply as it can be. */
function isAllowedByOne(
  one: AccessRule,
  identity: Identity,
  [who, right, what]: [Asker, Right, Target | undefined],
) {
  const spelled =
    identity.kind === 'certificate'
      ? identity.names.map((text) => `certificate:${text}`)
      : identity.kind === 'anonymous'
        ? []
        : [`${identity.kind}:${identity.name}`];
  const isNamed = listOf(one.who).some((pattern) =>
    pattern === 'anonymous' ? identity.kind === 'anonymous' : spelled.some((text) => glob(pattern, text)),
  );
  const isThere =
    one.network === undefined ||
    listOf(one.network).some((network) => IN_NETWORK[who.address ?? '']?.includes(network) === true);
  const has = Object.entries(one.claims ?? {}).every(([key, accepted]) => {
    const values = identity.kind === 'oidc' ? listOf(identity.claims[key]) : [];
    return values.some((value) =>
      listOf(accepted).some((pattern) =>
        typeof pattern === 'string' && typeof value === 'string' ? glob(pattern, value) : pattern === value,
      ),
    );
  });
  const scope = one[right === 'fetch' ? 'pull' : right];
  const isGranted =
    scope === true ||
    (what !== undefined &&
      listOf(scope).some((pattern) =>
        glob(pattern.replace('alias.io', 'a.io'), `${what.upstream}/${what.repository}`),
      ));
  return isNamed && isThere && has && isGranted && (right !== 'fetch' || one.fetch !== false);
}

test('rules decide as their text says: one rule that allows one identity is enough', () => {
  fc.assert(
    fc.property(rules, request, (list, asked) => {
      const [{ credentials, certificate }] = asked;
      const identities = [credentials, certificate, { kind: 'anonymous' as const }].filter(
        (one) => one !== undefined,
      );
      const allowing = list.filter((one) =>
        identities.some((identity) => isAllowedByOne(one, identity, asked)),
      );
      const decision = decide(list, asked);
      assert.equal(decision.allowed, allowing.length > 0);
      if (!decision.allowed) return;
      const deciding = list[decision.rule];
      assert.ok(deciding !== undefined && allowing.includes(deciding));
      assert.equal(decision.fetch, asked[1] !== 'pull' || allowing.some((one) => one.fetch !== false));
    }),
    { numRuns: 1000 },
  );
});

test('rules decide the same when they have seen other requests before', () => {
  fc.assert(
    fc.property(rules, fc.array(request, { minLength: 2, maxLength: 8 }), (list, requests) => {
      const used = new AccessRules(list, UPSTREAMS);
      for (const [who, right, what] of [...requests, ...requests]) {
        assert.deepEqual(used.decide(who, right, what), decide(list, [who, right, what]));
      }
    }),
  );
});

test('a rule more never takes a permission away', () => {
  fc.assert(
    fc.property(rules, rule, fc.nat(), request, (list, more, place, asked) => {
      const before = decide(list, asked);
      const after = decide(list.toSpliced(place % (list.length + 1), 0, more), asked);
      if (!before.allowed) return;
      assert.equal(after.allowed, true);
      assert.ok(after.allowed && (after.fetch || !before.fetch));
    }),
    { numRuns: 400 },
  );
});

test('what anonymous may, everybody may from that address', () => {
  fc.assert(
    fc.property(rules, request, (list, [who, right, what]) => {
      const anonymous = decide(list, [{ address: who.address }, right, what]);
      if (anonymous.allowed) assert.equal(decide(list, [who, right, what]).allowed, true);
    }),
    { numRuns: 400 },
  );
});

test('no wildcard of who lets anonymous in', () => {
  const known = rule.filter((one) => !listOf(one.who).includes('anonymous'));
  fc.assert(
    fc.property(fc.array(known, { maxLength: 6 }), request, (list, [{ address }, right, what]) => {
      assert.deepEqual(decide(list, [{ address }, right, what]), { allowed: false, somebody: false });
    }),
    { numRuns: 400 },
  );
});

test('without an address nothing is allowed that is not allowed from everywhere', () => {
  fc.assert(
    fc.property(rules, request, (list, [who, right, what]) => {
      if (!decide(list, [{ ...who, address: undefined }, right, what]).allowed) return;
      assert.equal(decide(list, [who, right, what]).allowed, true);
    }),
    { numRuns: 400 },
  );
});

test('an explanation agrees with the decision', () => {
  fc.assert(
    fc.property(rules, request, (list, [who, right, what]) => {
      const { decision, rules: explained } = new AccessRules(list, UPSTREAMS).explain(who, right, what);
      assert.deepEqual(decision, decide(list, [who, right, what]));
      assert.deepEqual(
        explained.map(({ rule: index }) => index),
        list.map((_, index) => index),
      );
      assert.equal(
        explained.some(({ allows }) => allows),
        decision.allowed,
      );
      const deciding = explained.filter(({ decides }) => decides);
      assert.deepEqual(
        deciding.map(({ rule: index, allows, whyNot }) => [index, allows, whyNot]),
        decision.allowed ? [[decision.rule, true, undefined]] : [],
      );
      for (const { allows, whyNot } of explained) assert.equal(allows, whyNot === undefined);
    }),
    { numRuns: 400 },
  );
});
