/** Decides by the rules of the configuration what a client may do on the operations side. */
import type { IncomingMessage } from 'node:http';
import type { AccessRules } from '../../access/rules/access-rules.ts';
import type { Asker } from '../../access/rules/identities.ts';
import type { Right, Target } from '../../access/rules/rule.ts';
import { RegistryError } from '../../oci/errors.ts';
import { ANONYMOUS, type Identity } from '../../request-context.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { ApiError } from '../operations/errors.ts';
import type { Admit, Permit } from '../operations/permit.ts';
import { countDecision, decisionOf, identityOf } from './decisions.ts';
import type { Caller, Gate } from './gate.ts';
import { refusalOf } from './refusals.ts';

const CHALLENGE = { 'WWW-Authenticate': 'Basic realm="millpond operations", charset="UTF-8"' };

/** Names in a refusal. An archive can list thousands. */
const NAMES_SHOWN = 5;

export function admitByRules(gate: Gate, metrics: Metrics): Admit {
  return async (message, caller) => {
    const asker = await askerOf(gate, message, caller, metrics);
    return new RulePermit(gate.access.rules, asker, metrics);
  };
}

async function askerOf(
  gate: Gate,
  message: IncomingMessage,
  caller: Caller,
  metrics: Metrics,
): Promise<Asker> {
  try {
    return (await gate.arrivalOf(message, caller)).asker;
  } catch (error) {
    const refusal = refusalOf(
      error,
      (text) => new RegistryError('UNAUTHORIZED', { message: text, headers: CHALLENGE }),
    );
    if (!(refusal instanceof RegistryError)) throw refusal;
    countDecision(metrics, ANONYMOUS, decisionOf(refusal));
    throw new ApiError(refusal.status as 401 | 429 | 503, refusal.message, refusal.headers);
  }
}

class RulePermit implements Permit {
  readonly identity: Identity;
  readonly #rules: AccessRules;
  readonly #asker: Asker;
  readonly #metrics: Metrics;

  constructor(rules: AccessRules, asker: Asker, metrics: Metrics) {
    this.identity = identityOf(asker);
    this.#rules = rules;
    this.#asker = asker;
    this.#metrics = metrics;
  }

  has(right: Right, image?: Target): boolean {
    return this.#rules.decide(this.#asker, right, image).allowed;
  }

  expectSome(right: Right): void {
    if (this.#rules.mayDoSomething(this.#asker, right)) return;
    this.#refuse(`no rule of this mirror lets you ${right} anything`);
  }

  require(rights: readonly Right[], images?: readonly Target[]): void {
    for (const right of rights) {
      if (images === undefined) {
        if (!this.has(right))
          this.#refuse(`this needs a rule with ${right}: true, and no rule gives you that`);
        continue;
      }
      const names = images
        .filter((image) => !this.has(right, image))
        .map(({ upstream, repository }) => `${upstream}/${repository}`);
      if (names.length > 0) this.#refuse(`no rule of this mirror lets you ${right} ${listed(names)}`);
    }
    countDecision(this.#metrics, this.identity, 'allowed');
  }

  only(rights: readonly Right[]): (image: Target) => boolean {
    countDecision(this.#metrics, this.identity, 'allowed');
    return (image) => rights.every((right) => this.has(right, image));
  }

  #refuse(message: string): never {
    const somebody = this.#rules.isSomebody(this.#asker);
    countDecision(this.#metrics, this.identity, somebody ? 'denied' : 'unauthorized');
    if (somebody) throw new ApiError(403, message);
    throw new ApiError(401, 'log in to use the operations side of this mirror', CHALLENGE);
  }
}

function listed(names: readonly string[]): string {
  const unique = [...new Set(names)];
  const more = unique.length - NAMES_SHOWN;
  return `${unique.slice(0, NAMES_SHOWN).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
