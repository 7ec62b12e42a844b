/** Asks the rules of a configuration a question, without a running mirror. */
import { canonicalAddress } from '../../access/network/addresses.ts';
import { AccessRules, type Explanation } from '../../access/rules/access-rules.ts';
import type { Asker } from '../../access/rules/identities.ts';
import type { Target } from '../../access/rules/rule.ts';
import { parseWho } from '../../access/rules/who.ts';
import type { Config } from '../../config/schema.ts';
import { upstreamByHost } from '../../config/upstream-names.ts';
import { parseImageName } from '../../oci/image-name.ts';
import { table } from '../io/output.ts';

/** A question that cannot be asked. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface AccessQuery {
  /** As `who` in a rule spells identities, without `*`. Empty: anonymous. */
  as: readonly string[];
  network: string | undefined;
  /** `name=text` or `name:=JSON`. */
  claims: readonly string[];
  right: 'pull' | 'operate' | 'observe';
  /** Undefined: the mirror as a whole. */
  image: string | undefined;
}

export interface AccessAnswer {
  allowed: boolean;
  /** For people. */
  text: string;
  json: Record<string, unknown>;
}

/** @throws {UsageError} */
export function explainAccess(config: Config, query: AccessQuery): AccessAnswer {
  const { access } = config;
  const upstreams = upstreamByHost(config);
  const asker = askerOf(query, config);
  const target = query.image === undefined ? undefined : targetOf(query.image, upstreams);
  const name = target && `${target.upstream}/${target.repository}`;
  const who = query.as.length === 0 ? 'anonymous' : query.as.join(' with ');
  const question = { as: query.as, right: query.right, ...(name === undefined ? {} : { name }) };
  if (access === undefined) {
    const text = 'allowed: the configuration has no access, so everybody may do everything\n';
    return { allowed: true, text, json: { ...question, allowed: true, rules: [] } };
  }
  const { decision, rules } = new AccessRules(access.rules, upstreams).explain(asker, query.right, target);
  const what = `${who} may ${query.right} ${name ?? 'the mirror as a whole'}`;
  const rows = rules.map(({ rule, decides, whyNot }) => [
    placeOf(rule),
    decides ? 'decides' : whyNot === undefined ? 'allows it, too' : 'no',
    whyNot ?? '',
  ]);
  const { allowed } = decision;
  return {
    allowed,
    text: `${headline(what, decision)}\n\n${table([['RULE', 'ALLOWS', 'WHY NOT'], ...rows])}`,
    json: {
      ...question,
      ...decision,
      ...(decision.allowed ? { rule: placeOf(decision.rule) } : {}),
      rules: rules.map(({ rule, ...about }) => ({ rule: placeOf(rule), ...about })),
    },
  };
}

/** As `config check` names it. */
function placeOf(rule: number): string {
  return `access.rules[${rule}]`;
}

function headline(what: string, decision: Explanation['decision']): string {
  if (!decision.allowed) return `refused: no rule says that ${what}`;
  const limit = decision.fetch ? '' : ', but only what is cached (fetch: false)';
  return `allowed by ${placeOf(decision.rule)}: ${what}${limit}`;
}

function targetOf(image: string, upstreams: ReadonlyMap<string, string>): Target {
  const name = parseImageName(image);
  if (name === undefined)
    throw new UsageError(`${image} is not an image name: write it like docker.io/library/alpine`);
  const upstream = upstreams.get(name.host);
  if (upstream === undefined) throw new UsageError(`${name.host} is not one of the configured upstreams`);
  return { upstream, repository: name.repository };
}

function askerOf({ as, network, claims: claimTexts }: AccessQuery, config: Config): Asker {
  const claims = Object.fromEntries(claimTexts.map(claimOf));
  const address = network === undefined ? undefined : canonicalAddress(network);
  if (network !== undefined && address === undefined) throw new UsageError(`${network} is not an IP address`);
  const credentials: NonNullable<Asker['credentials']>[] = [];
  const names: string[] = [];
  for (const text of as.filter((one) => one !== 'anonymous')) {
    const [, kind, name = ''] = /^(\w+):(.+)$/s.exec(text) ?? [];
    if (kind === undefined || parseWho(text) === undefined || name.includes('*'))
      throw new UsageError(
        `--as ${text} is not one identity: write it like user:ops or certificate:DNS:build-1`,
      );
    if (kind === 'certificate') names.push(name);
    else if (kind === 'user' || kind === 'token') credentials.push({ kind, name });
    else {
      if (config.access?.oidc.some((issuer) => issuer.name === name) === false)
        throw new UsageError(`${text} is not one of the issuers under access.oidc`);
      credentials.push({ kind: 'oidc', name, claims });
    }
  }
  if (credentials.length > 1)
    throw new UsageError('a request has credentials of one kind: give one of user:, token: and oidc:');
  if (claimTexts.length > 0 && credentials[0]?.kind !== 'oidc')
    throw new UsageError('only tokens of an issuer have claims: add --as oidc:NAME');
  return {
    address,
    credentials: credentials[0],
    certificate: names.length === 0 ? undefined : { kind: 'certificate', names },
  };
}

function claimOf(text: string): [string, unknown] {
  const [, name = '', isJson, value = ''] = /^(.+?)(:?)=(.*)$/s.exec(text) ?? [];
  if (name === '')
    throw new UsageError(`--claim ${text} is not a claim: write it like repository_owner_id=123456`);
  if (isJson !== ':') return [name, value];
  try {
    return [name, JSON.parse(value)];
  } catch {
    throw new UsageError(`--claim ${text}: after := comes JSON, such as true or ["a", "b"]`);
  }
}
