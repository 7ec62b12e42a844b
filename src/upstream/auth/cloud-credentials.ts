/**
 * Credentials that a cloud gives for some hours, to whoever it finds this process to be: by environment, profile, managed
 * identity or role. Its SDK is not installed with Millpond, and imported only here.
 */
import type { Clock } from '../../clock.ts';
import type { CredentialProvider, Credentials } from './credentials.ts';

const RENEW_EARLY_MS = 5 * 60_000;
/** What is refused is not asked for again before this has passed. */
const RERUN_AFTER_MS = 10_000;

export interface CloudContext {
  clock: Clock;
  /** Imports a package by its name. @throws the runtime's error if it is not installed */
  importPackage: (name: string) => Promise<unknown>;
}

/** What is used of `@aws-sdk/client-ecr`. */
interface EcrModule {
  ECRClient: new (options: {
    region?: string;
  }) => {
    send(
      command: unknown,
    ): Promise<{ authorizationData?: { authorizationToken?: string; expiresAt?: Date }[] }>;
  };
  GetAuthorizationTokenCommand: new (input: object) => unknown;
}

/** What is used of `@azure/identity`. */
interface IdentityModule {
  DefaultAzureCredential: new () => {
    getToken(scope: string): Promise<{ token: string; expiresOnTimestamp: number }>;
  };
}

const TWELVE_HOURS_MS = 12 * 3_600_000;

/**
 * Amazon ECR: `GetAuthorizationToken` gives a name and password that are good for twelve hours.
 *
 * @param host `<account>.dkr.ecr.<region>.amazonaws.com`, whose region is asked unless another is given
 */
export function ecrCredentials(
  { host, region = regionOf(host) }: { host: string; region?: string | undefined },
  context: CloudContext,
): CredentialProvider {
  return keptWhileGood(context.clock, async () => {
    const sdk = await importSdk<EcrModule>('ecr', '@aws-sdk/client-ecr', context);
    const client = new sdk.ECRClient(region === undefined ? {} : { region });
    const { authorizationData } = await client.send(new sdk.GetAuthorizationTokenCommand({}));
    const { authorizationToken = '', expiresAt } = authorizationData?.[0] ?? {};
    const [username = '', password = ''] = Buffer.from(authorizationToken, 'base64')
      .toString('utf8')
      .split(':');
    if (username === '' || password === '') throw new Error('Amazon ECR answered without a token');
    const until = expiresAt?.getTime() ?? context.clock.now() + TWELVE_HOURS_MS;
    return { credentials: { username, password }, until };
  });
}

function regionOf(host: string): string | undefined {
  return /\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\./.exec(host)?.[1];
}

const ACR_SCOPE = 'https://containerregistry.azure.net/.default';

/** Azure: a Microsoft Entra token, which the registry exchanges for a refresh token of its own (see `Tokens`). */
export function acrCredentials(context: CloudContext): CredentialProvider {
  return keptWhileGood(context.clock, async () => {
    const sdk = await importSdk<IdentityModule>('acr', '@azure/identity', context);
    const { token, expiresOnTimestamp } = await new sdk.DefaultAzureCredential().getToken(ACR_SCOPE);
    return { credentials: { entraToken: token }, until: expiresOnTimestamp };
  });
}

/** Asks once, whoever wants them at the same time, and again before they end. */
function keptWhileGood(
  clock: Clock,
  ask: () => Promise<{ credentials: Credentials; until: number }>,
): CredentialProvider {
  let kept: { at: number; until: number; credentials: Credentials } | undefined;
  let asking: Promise<Credentials> | undefined;
  const renew = async (): Promise<Credentials> => {
    const at = clock.now();
    kept = { at, ...(await ask()) };
    return kept.credentials;
  };
  return async ({ refused } = { refused: false }) => {
    const now = clock.now();
    if (kept !== undefined && now >= kept.at) {
      const isGood = now < kept.until - RENEW_EARLY_MS && !(refused && now - kept.at >= RERUN_AFTER_MS);
      if (isGood) return kept.credentials;
    }
    asking ??= renew().finally(() => {
      asking = undefined;
    });
    return asking;
  };
}

async function importSdk<T>(kind: string, name: string, { importPackage }: CloudContext): Promise<T> {
  try {
    return (await importPackage(name)) as T;
  } catch (error) {
    throw new Error(`credentials: { ${kind} } needs an SDK: npm install ${name}`, { cause: error });
  }
}
