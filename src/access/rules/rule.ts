/** One rule: what it says in the configuration, and what that means for one request. */
import { NetworkList } from '../network/networks.ts';
import { asList, type ClaimPatterns, type ClaimsCheck, compileClaims } from './claims.ts';
import { type Identity, spellings } from './identities.ts';
import { compileRepositoryPattern, type UpstreamByHost } from './repositories.ts';
import { isNamed, parseWho, type Who } from './who.ts';

/**
 * What a request needs. `pull` allows what is cached, `fetch` also allows what must come from upstream. `operate`
 * changes the cache, `observe` looks into it.
 */
export type Right = 'pull' | 'fetch' | 'operate' | 'observe';

/** The repository that a request is about, with aliases resolved. */
export interface Target {
  readonly upstream: string;
  readonly repository: string;
}

/** A rule as it is written. It only allows. */
export interface AccessRule {
  /** `anonymous`, `*` (anyone with an identity), or `user:`, `token:`, `oidc:`, `certificate:` and a name with `*`. */
  readonly who: string | readonly string[];
  /** Addresses and networks. The client's address must be in one of them. */
  readonly network?: string | readonly string[] | undefined;
  readonly claims?: ClaimPatterns | undefined;
  readonly pull?: string | readonly string[] | undefined;
  /** False: only what is cached. Default: true. */
  readonly fetch?: boolean | undefined;
  readonly operate?: true | string | readonly string[] | undefined;
  readonly observe?: true | string | readonly string[] | undefined;
}

/** Whether a right covers a name, `upstream/repository`. Without a name, the question is about the mirror as a whole. */
type Scope = (name: string | undefined) => boolean;

export class Rule {
  /** Its place in the configuration, from 0. */
  readonly index: number;
  readonly fetch: boolean;
  readonly networks: NetworkList | undefined;
  readonly #rule: AccessRule;
  readonly #claims: ClaimsCheck | undefined;
  readonly #who: readonly Who[];
  readonly #scopes: Readonly<Record<Right, Scope | undefined>>;

  constructor(rule: AccessRule, index: number, upstreams: UpstreamByHost) {
    this.index = index;
    this.fetch = rule.fetch ?? true;
    this.networks = rule.network === undefined ? undefined : new NetworkList(asList(rule.network));
    this.#rule = rule;
    this.#claims = rule.claims === undefined ? undefined : compileClaims(rule.claims);
    this.#who = asList(rule.who).flatMap((text) => parseWho(text) ?? []);
    const pull = compileScope(rule.pull, upstreams);
    this.#scopes = {
      pull,
      fetch: this.fetch ? pull : undefined,
      operate: compileScope(rule.operate, upstreams),
      observe: compileScope(rule.observe, upstreams),
    };
  }

  /** Whether `who` names this identity, whatever the other conditions say. */
  names(identity: Identity): boolean {
    return this.#who.some((one) => isNamed(one, identity));
  }

  /** Whether the rule is about this identity: `who` names it, and its claims match. */
  covers(identity: Identity): boolean {
    return this.names(identity) && this.#failingClaim(identity) === undefined;
  }

  /** Whether it gives `right` for `name`, `upstream/repository`; without a name, for the mirror as a whole. */
  grants(right: Right, name: string | undefined): boolean {
    return this.#scopes[right]?.(name) ?? false;
  }

  /** Whether it gives `right` for anything. */
  gives(right: Right): boolean {
    const value = this.#rule[right === 'fetch' ? 'pull' : right];
    if (value === undefined || (right === 'fetch' && !this.fetch)) return false;
    return value === true || asList(value).length > 0;
  }

  /** The claims that it asks for, when it may be about tokens of `issuer`. */
  claimsAskedOf(issuer: string): readonly string[] {
    const { claims = {} } = this.#rule;
    return this.names({ kind: 'oidc', name: issuer, claims: {} }) ? Object.keys(claims) : [];
  }

  /** The first condition that a request does not meet, as text for people; undefined when it allows the request. */
  whyNot(
    identities: readonly Identity[],
    address: string | undefined,
    right: Right,
    name: string | undefined,
  ): string | undefined {
    const named = identities.filter((identity) => this.names(identity));
    if (named.length === 0) return `it does not name ${identities.flatMap(spellings).join(' or ')}`;
    if (!named.some((identity) => this.covers(identity))) {
      const [claim] = named.map((identity) => this.#failingClaim(identity));
      return `the claim ${claim} is missing or differs`;
    }
    if (this.networks !== undefined && !this.networks.has(address)) {
      return address === undefined
        ? "it needs a network, and the client's address is not known"
        : `${address} is not in its network`;
    }
    if (this.grants(right, name)) return undefined;
    const key = right === 'fetch' ? 'pull' : right;
    if (this.#rule[key] === undefined) return `it has no ${key}`;
    if (right === 'fetch' && this.grants('pull', name)) return 'it allows only what is cached (fetch: false)';
    return name === undefined
      ? `it needs ${key}: true, because this is not about one image`
      : `no pattern of its ${key} matches ${name}`;
  }

  #failingClaim(identity: Identity): string | undefined {
    if (this.#claims === undefined) return undefined;
    return this.#claims(identity.kind === 'oidc' ? identity.claims : {});
  }
}

function compileScope(
  value: true | string | readonly string[] | undefined,
  upstreams: UpstreamByHost,
): Scope | undefined {
  if (value === undefined) return undefined;
  if (value === true) return () => true;
  const globs = asList(value).map((pattern) => compileRepositoryPattern(pattern, upstreams));
  return (name) => name !== undefined && globs.some((matches) => matches(name));
}
