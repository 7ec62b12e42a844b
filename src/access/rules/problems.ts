/** Finds rules that can never decide, and rules that let in more than was meant. For `config check`. */
import { parseNetwork } from '../network/networks.ts';
import { asList, type ClaimPattern } from './claims.ts';
import { type PublicIssuer, publicIssuer } from './issuers.ts';
import { patternProblem, type UpstreamByHost } from './repositories.ts';
import type { AccessRule } from './rule.ts';
import { type NamedKind, parseWho, type Who } from './who.ts';

export interface RuleProblem {
  /** Below the list of rules: the rule's place, the key, and the place in its list. */
  readonly path: readonly (string | number)[];
  readonly message: string;
  /** A configuration with an error is not used. */
  readonly severity: 'error' | 'warning';
}

interface Issuer {
  readonly name: string;
  readonly issuer: string;
  /** Rules may mean everybody who has a token of this issuer. */
  readonly everyone?: boolean | undefined;
}

/** The other parts of the configuration that rules depend on. */
export interface Surroundings {
  readonly upstreams: UpstreamByHost;
  /** Whether there is an htpasswd file. */
  readonly users: boolean;
  /** Whether there is a tokens file. */
  readonly tokens: boolean;
  /** Whether a listener asks for client certificates. */
  readonly certificates: boolean;
  readonly issuers: readonly Issuer[];
}

/** Claims that every token for this mirror has: they do not tell one holder from another. */
const IN_EVERY_TOKEN = new Set(['iss', 'aud', 'exp', 'iat', 'nbf', 'jti']);

export function ruleProblems(rules: readonly AccessRule[], surroundings: Surroundings): RuleProblem[] {
  return rules.flatMap((rule, index) => {
    const all = [
      ...whoProblems(rule, surroundings),
      ...networkProblems(rule),
      ...claimProblems(rule, surroundings),
      ...rightProblems(rule, surroundings),
    ];
    return all.map(({ path, ...problem }) => ({ ...problem, path: [index, ...path] }));
  });
}

function whoProblems({ who, claims }: AccessRule, surroundings: Surroundings): RuleProblem[] {
  const texts = asList(who);
  if (texts.length === 0) return [error(['who'], 'names nobody, so this rule never decides')];
  return texts.flatMap((text, place) => {
    const path = Array.isArray(who) ? ['who', place] : ['who'];
    const parsed = parseWho(text);
    if (parsed === undefined) {
      const forms =
        'anonymous, *, user:NAME, token:NAME, oidc:NAME or certificate:CN=… (DNS:… URI:… EMAIL:…)';
      return [error(path, `must be ${forms}, got ${JSON.stringify(text)}`)];
    }
    if (claims !== undefined && parsed.kind !== 'oidc') {
      const what = `${text} has no claims, only oidc: has: give it a rule without claims`;
      return [error(path, what)];
    }
    const unknown = notConfigured(parsed, text, surroundings);
    return unknown === undefined ? [] : [error(path, unknown)];
  });
}

function notConfigured(who: Who, text: string, surroundings: Surroundings): string | undefined {
  const { users, tokens, certificates, issuers } = surroundings;
  const ways: Record<NamedKind, { is: boolean; add: string }> = {
    user: { is: users, add: 'access.users' },
    token: { is: tokens, add: 'access.tokens' },
    oidc: { is: issuers.length > 0, add: 'access.oidc' },
    certificate: { is: certificates, add: 'clientCa to the tls of a listener' },
  };
  if (who.kind === 'anonymous') return undefined;
  if (who.kind === 'somebody') {
    if (Object.values(ways).some(({ is }) => is)) return undefined;
    return `${text} means anyone who logs in, but no login is configured: add access.users, access.tokens or access.oidc`;
  }
  const { is, add } = ways[who.kind];
  if (!is) return `${text} matches nobody, because this kind of login is not configured: add ${add}`;
  if (who.kind === 'oidc' && !issuers.some(({ name }) => who.matches(name))) {
    return `${text} is not one of the issuers in access.oidc: ${issuers.map(({ name }) => name).join(', ')}`;
  }
  return undefined;
}

function networkProblems({ network }: AccessRule): RuleProblem[] {
  if (network === undefined) return [];
  const texts = asList(network);
  if (texts.length === 0) return [error(['network'], 'is empty, so this rule never decides')];
  return texts.flatMap((text, place) => {
    if (parseNetwork(text) !== undefined) return [];
    const path = Array.isArray(network) ? ['network', place] : ['network'];
    return [error(path, `must be an address or a network such as 10.0.0.0/8, got ${JSON.stringify(text)}`)];
  });
}

function claimProblems(rule: AccessRule, { issuers }: Surroundings): RuleProblem[] {
  const whos = asList(rule.who).flatMap((text) => parseWho(text) ?? []);
  const meant = issuers.filter(({ name }) =>
    whos.some((who) => who.kind === 'somebody' || (who.kind === 'oidc' && who.matches(name))),
  );
  const claims = Object.entries(rule.claims ?? {}).map(([name, accepted]) => ({
    name,
    accepted: asList(accepted),
  }));
  const problems = claims.flatMap(({ name, accepted }) => {
    if (accepted.length === 0) return [error(['claims', name], 'is empty, so this rule never decides')];
    return accepted.flatMap((pattern) => claimPatternProblems(name, pattern, meant));
  });
  const telling = claims.filter(
    ({ name, accepted }) => !IN_EVERY_TOKEN.has(name) && accepted.every(isTelling),
  );
  for (const { name, issuer, everyone } of meant) {
    if (everyone === true) continue;
    const known = publicIssuer(issuer);
    if (telling.length === 0) {
      problems.push(error([rule.claims === undefined ? 'who' : 'claims'], withoutClaims(name, known)));
    } else if (known !== undefined && !telling.some((claim) => known.owners.includes(claim.name))) {
      const what = `none of these claims says whose token of ${known.name} it is, so this holds for every account there`;
      problems.push({ path: ['claims'], severity: 'warning', message: `${what}: add ${known.advice}` });
    }
  }
  return problems;
}

function withoutClaims(name: string, known: PublicIssuer | undefined): string {
  const whoever =
    known === undefined ? 'anyone who gets a token there' : `everybody who has an account there`;
  const advice =
    known === undefined ? 'claims that say whose tokens you mean' : `claims with ${known.advice}`;
  const issuer = known === undefined ? `oidc:${name}` : `oidc:${name} (${known.name})`;
  return `a rule for ${issuer} without claims lets in ${whoever}: add ${advice}, or everyone: true to the issuer`;
}

/** Whether it leaves anything out. `*` alone does not. */
function isTelling(pattern: ClaimPattern): boolean {
  return typeof pattern !== 'string' || /[^*]/.test(pattern);
}

function claimPatternProblems(
  name: string,
  pattern: ClaimPattern,
  issuers: readonly Issuer[],
): RuleProblem[] {
  const path = ['claims', name];
  if (typeof pattern === 'number') {
    const known = issuers.map(({ issuer }) => publicIssuer(issuer)).find((one) => one?.digits.includes(name));
    if (known === undefined) return [];
    return [
      error(path, `is a string in the tokens of ${known.name}, so this never matches: write '${pattern}'`),
    ];
  }
  if (typeof pattern !== 'string') return [];
  // `repo:acme*` also matches `repo:acme-evil/…`: anybody can choose a name that begins like ours.
  const [, start] = /^([^*]*[^*:/])\*/.exec(pattern) ?? [];
  const [, end] = /\*([^*:/@][^*]*)$/.exec(pattern) ?? [];
  const shown = JSON.stringify(pattern);
  const advice = 'put the * where a whole part stands, between : or /';
  return [
    ...(start === undefined
      ? []
      : [`${shown} also matches longer names that begin with ${start}: ${advice}`]),
    ...(end === undefined ? [] : [`${shown} also matches longer names that end with ${end}: ${advice}`]),
  ].map((message) => ({ path, severity: 'warning', message }));
}

function rightProblems(rule: AccessRule, { upstreams }: Surroundings): RuleProblem[] {
  const problems = (['pull', 'operate', 'observe'] as const).flatMap((right) => {
    const value = rule[right];
    if (value === undefined || value === true) return [];
    return asList(value).flatMap((pattern, place) => {
      const message = patternProblem(pattern, upstreams);
      return message === undefined ? [] : [error(Array.isArray(value) ? [right, place] : [right], message)];
    });
  });
  const given = [rule.pull, rule.operate, rule.observe].filter(
    (value) => value !== undefined && (value === true || asList(value).length > 0),
  );
  if (given.length === 0) {
    problems.push(error([], 'allows nothing: add pull, operate or observe, with at least one pattern'));
  }
  if (rule.fetch !== undefined && rule.pull === undefined) {
    problems.push({ path: ['fetch'], severity: 'warning', message: 'says nothing without pull' });
  }
  return problems;
}

function error(path: (string | number)[], message: string): RuleProblem {
  return { path, message, severity: 'error' };
}
