/** Opens what access control is made of, as the configuration says. Loaded only where there is any. */
import { join } from 'node:path';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../telemetry/log.ts';
import { Credentials } from '../credentials/credentials.ts';
import { LAST_USES_FILE } from '../credentials/tokens/last-uses.ts';
import { NetworkList } from '../network/networks.ts';
import { Issuer, type IssuerSettings } from '../oidc/issuer.ts';
import type { SendRequest } from '../oidc/issuer-http.ts';
import { Issuers } from '../oidc/issuers.ts';
import { AccessRules } from '../rules/access-rules.ts';
import type { UpstreamByHost } from '../rules/repositories.ts';
import type { AccessRule } from '../rules/rule.ts';
import { MirrorTokens } from '../tokens/mirror-tokens.ts';
import { ownSigningKey, signingKeyFrom } from '../tokens/signing-key.ts';
import { Authentication } from './authentication.ts';
import { TokenExchange } from './token-exchange.ts';

type IssuerConfig = Omit<IssuerSettings, 'claims'> & { ca?: string | undefined };

/** The section `access` of the configuration. */
export interface AccessConfig {
  users?: { htpasswd: string } | undefined;
  tokens?: string | undefined;
  oidc: readonly IssuerConfig[];
  rules: readonly AccessRule[];
  noChallenge: readonly string[];
  signingKey?: { file: string } | undefined;
  insecure: boolean;
}

export interface AccessContext {
  cacheDirectory: string;
  upstreams: UpstreamByHost;
  /** Makes what sends requests to an issuer, through the proxies of the environment. @param ca PEM file */
  sendTo: (issuer: { name: string; ca: string | undefined }) => Promise<SendRequest>;
  sealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

export interface AccessControl {
  /** They change when the configuration file does. */
  readonly rules: AccessRules;
  readonly authentication: Authentication;
  readonly exchange: TokenExchange;
  /** Clients that are never asked to log in. */
  readonly noChallenge: NetworkList;
  /** Whether credentials are taken without TLS, too. */
  readonly insecure: boolean;
  useRules(rules: readonly AccessRule[], upstreams: UpstreamByHost): void;
  /** Writes when tokens were last used. */
  close(): Promise<void>;
}

/**
 * @throws {FileError} {SigningKeyError} a file cannot be used
 * @throws {Error} the settings of an issuer cannot be used
 */
export async function openAccessControl(
  config: AccessConfig,
  context: AccessContext,
): Promise<AccessControl> {
  const { cacheDirectory, upstreams, logger, clock } = context;
  const { users, tokens: file, signingKey, oidc } = config;
  let rules = new AccessRules(config.rules, upstreams);
  const issuers = await openIssuers(oidc, (issuer) => rules.claimsAskedOf(issuer), context);
  const { key, warning } =
    signingKey === undefined ? await ownSigningKey(cacheDirectory) : await signingKeyFrom(signingKey.file);
  if (warning !== undefined) logger.warn({}, warning);
  const credentials = await Credentials.open(
    {
      htpasswd: users?.htpasswd,
      tokens: file === undefined ? undefined : { file, lastUses: join(cacheDirectory, LAST_USES_FILE) },
    },
    { clock, logger },
  );
  const tokens = new MirrorTokens(key, {
    clock,
    isCurrent: async (origin) =>
      origin.kind === 'oidc'
        ? issuers?.fingerprint(origin.name) === origin.fingerprint
        : credentials.isCurrent({ ...origin, kind: origin.kind }),
  });
  const authentication = new Authentication({ credentials, issuers, tokens });
  if (config.insecure)
    logger.warn(
      {},
      'access.insecure: passwords and tokens are taken without TLS, so anyone on the way can read them',
    );
  return {
    get rules() {
      return rules;
    },
    useRules: (changed, upstreamsNow) => {
      rules = new AccessRules(changed, upstreamsNow);
    },
    ...{ authentication, insecure: config.insecure },
    exchange: new TokenExchange(authentication, tokens),
    noChallenge: new NetworkList(config.noChallenge),
    close: () => credentials.close(),
  };
}

async function openIssuers(
  configs: readonly IssuerConfig[],
  claimsAskedOf: (issuer: string) => readonly string[],
  context: AccessContext,
): Promise<Issuers | undefined> {
  if (configs.length === 0) return undefined;
  const opened = configs.map(async (config) => {
    const send = await context.sendTo({ name: config.name, ca: config.ca });
    return new Issuer({ ...config, claims: () => claimsAskedOf(config.name) }, { ...context, send });
  });
  return new Issuers(await Promise.all(opened));
}
