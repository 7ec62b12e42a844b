/**
 * Decides who may do what. Rules only allow, and what no rule allows is refused.
 *
 * Remembers which rules name an identity, and which networks an address is in. So each request only matches its name
 * with the patterns of those few rules. Keeps nothing for a name: a client that asks for a million names costs no
 * memory.
 */
import { LRUCache } from 'lru-cache';
import { ANONYMOUS, type Asker, type Identity, type IdentityKind } from './identities.ts';
import type { UpstreamByHost } from './repositories.ts';
import { type AccessRule, type Right, Rule, type Target } from './rule.ts';

export type Decision =
  | {
      readonly allowed: true;
      /** The place of the rule that decides, from 0. */
      readonly rule: number;
      /** The kind of the identity that the rule allows. */
      readonly kind: IdentityKind;
      /** Whether it may come from upstream; false: only what is cached. True where the right is not `pull`. */
      readonly fetch: boolean;
    }
  | {
      readonly allowed: false;
      /** Whether the asker is known (403), or only anonymous and should log in (401). */
      readonly somebody: boolean;
    };

export interface Explanation {
  readonly decision: Decision;
  /** Every rule, in the order of the configuration. */
  readonly rules: readonly {
    readonly rule: number;
    readonly allows: boolean;
    readonly decides: boolean;
    /** Why it does not allow the request. */
    readonly whyNot?: string;
  }[];
}

/** Users and tokens, and addresses, that are remembered: some 100 bytes each. */
const REMEMBERED = 4096;

export class AccessRules {
  readonly #rules: readonly Rule[];
  readonly #anonymous: readonly Rule[];
  readonly #bound: readonly Rule[];
  readonly #byName = new LRUCache<string, readonly Rule[]>({ max: REMEMBERED });
  readonly #byIdentity = new WeakMap<Identity, readonly Rule[]>();
  readonly #byAddress = new LRUCache<string, ReadonlySet<Rule>>({ max: REMEMBERED });

  /**
   * @param rules without problems, see `ruleProblems`
   * @param upstreams by their names and aliases
   * @throws {RangeError} a network cannot be read
   */
  constructor(rules: readonly AccessRule[], upstreams: UpstreamByHost) {
    this.#rules = rules.map((rule, index) => new Rule(rule, index, upstreams));
    this.#anonymous = this.#rules.filter((rule) => rule.covers(ANONYMOUS));
    this.#bound = this.#rules.filter(({ networks }) => networks !== undefined);
  }

  /**
   * @param target absent: the question is about the mirror as a whole, which patterns never allow
   */
  decide(asker: Asker, right: Right, target?: Target): Decision {
    const name = target && nameOf(target);
    const reached = this.#networksOf(asker.address);
    let cachedOnly: Decision | undefined;
    for (const identity of identitiesOf(asker)) {
      for (const rule of this.#rulesFor(identity)) {
        if (rule.networks !== undefined && reached?.has(rule) !== true) continue;
        if (!rule.grants(right, name)) continue;
        const fetch = right !== 'pull' || rule.fetch;
        const decision: Decision = { allowed: true, rule: rule.index, kind: identity.kind, fetch };
        if (fetch) return decision;
        // Another rule may let the same request go to upstream.
        cachedOnly ??= decision;
      }
    }
    return cachedOnly ?? { allowed: false, somebody: this.isSomebody(asker) };
  }

  /** Says for each rule whether it allows the request, and if not, why. */
  explain(asker: Asker, right: Right, target?: Target): Explanation {
    const decision = this.decide(asker, right, target);
    const name = target && nameOf(target);
    const identities = identitiesOf(asker);
    const rules = this.#rules.map((rule) => {
      const whyNot = rule.whyNot(identities, asker.address, right, name);
      return {
        rule: rule.index,
        allows: whyNot === undefined,
        decides: decision.allowed && decision.rule === rule.index,
        ...(whyNot === undefined ? {} : { whyNot }),
      };
    });
    return { decision, rules };
  }

  /**
   * Whether the asker is known, so that logging in would not help: by credentials, or by a certificate that some rule
   * names. A certificate that no rule names is not enough: its holder can still log in, and must be told so.
   */
  isSomebody({ credentials, certificate }: Asker): boolean {
    if (credentials !== undefined) return true;
    return certificate !== undefined && this.#rules.some((rule) => rule.names(certificate));
  }

  /** Whether there is anything for which the asker has the right. */
  mayDoSomething(asker: Asker, right: Right): boolean {
    const reached = this.#networksOf(asker.address);
    return identitiesOf(asker).some((identity) =>
      this.#rulesFor(identity).some(
        (rule) => rule.gives(right) && (rule.networks === undefined || reached?.has(rule) === true),
      ),
    );
  }

  /** The names of the claims that rules look at in tokens of `issuer`; a session keeps only these. */
  claimsAskedOf(issuer: string): string[] {
    return [...new Set(this.#rules.flatMap((rule) => rule.claimsAskedOf(issuer)))];
  }

  #rulesFor(identity: Identity): readonly Rule[] {
    switch (identity.kind) {
      case 'anonymous':
        return this.#anonymous;
      case 'user':
      case 'token':
        return this.#remember(this.#byName, `${identity.kind}:${identity.name}`, identity);
      case 'oidc':
      case 'certificate':
        return this.#remember(this.#byIdentity, identity, identity);
    }
  }

  #remember<K>(
    memory: { get(key: K): readonly Rule[] | undefined; set(key: K, rules: readonly Rule[]): unknown },
    key: K,
    identity: Identity,
  ): readonly Rule[] {
    const known = memory.get(key);
    if (known !== undefined) return known;
    const rules = this.#rules.filter((rule) => rule.covers(identity));
    memory.set(key, rules);
    return rules;
  }

  /** The rules with a network that `address` is in. */
  #networksOf(address: string | undefined): ReadonlySet<Rule> | undefined {
    if (address === undefined || this.#bound.length === 0) return undefined;
    const known = this.#byAddress.get(address);
    if (known !== undefined) return known;
    const rules = new Set(this.#bound.filter(({ networks }) => networks?.has(address)));
    this.#byAddress.set(address, rules);
    return rules;
  }
}

/** Anonymous comes last, so that a decision names the more specific identity. */
function identitiesOf({ credentials, certificate }: Asker): readonly Identity[] {
  if (credentials === undefined) return certificate === undefined ? NOBODY : [certificate, ANONYMOUS];
  return certificate === undefined ? [credentials, ANONYMOUS] : [credentials, certificate, ANONYMOUS];
}

const NOBODY: readonly Identity[] = [ANONYMOUS];

function nameOf({ upstream, repository }: Target): string {
  return `${upstream}/${repository}`;
}
