/**
 * Credentials that a cloud issues for some hours. Its SDK finds the identity of this process: by environment, profile,
 * managed identity or role. The SDK is not installed with Millpond and is imported only here.
 */
import type { Clock } from '../../clock.ts';
import type { CredentialProvider, Credentials } from './credentials.ts';

const RENEW_EARLY_MS = 5 * 60_000;
/** Keep refused credentials at least this long. Else the mirror would ask the cloud with every pull that they fail. */
const RERUN_AFTER_MS = 10_000;

export interface CloudContext {
  clock: Clock;
  /** Imports a package by its name. @throws the error of the runtime if it is not installed */
  importPackage: (name: string) => Promise<unknown>;
}

/** The part of `@aws-sdk/client-ecr` that we use. */
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

/** The part of `@azure/identity` that we use. */
interface IdentityModule {
  DefaultAzureCredential: new () => {
    getToken(scope: string): Promise<{ token: string; expiresOnTimestamp: number }>;
  };
}

const TWELVE_HOURS_MS = 12 * 3_600_000;

/**
 * Amazon ECR: `GetAuthorizationToken` returns a user name and a password that are valid for twelve hours.
 *
 * @param host `<account>.dkr.ecr.<region>.amazonaws.com`
 * @param region the region to ask; the one in `host` by default
 */
export function ecrCredentials(
  { host, region = regionOf(host) }: { host: string; region?: string | undefined },
  context: CloudContext,
): CredentialProvider {
  return cached(context.clock, async () => {
    const sdk = await importSdk<EcrModule>('ecr', '@aws-sdk/client-ecr', context);
    const client = new sdk.ECRClient(region === undefined ? {} : { region });
    const { authorizationData } = await client.send(new sdk.GetAuthorizationTokenCommand({}));
    const { authorizationToken = '', expiresAt } = authorizationData?.[0] ?? {};
    const [username = '', password = ''] = Buffer.from(authorizationToken, 'base64')
      .toString('utf8')
      .split(':');
    if (username === '' || password === '')
      throw new Error('Amazon ECR returned no usable authorization token');
    const until = expiresAt?.getTime() ?? context.clock.now() + TWELVE_HOURS_MS;
    return { credentials: { username, password }, until };
  });
}

function regionOf(host: string): string | undefined {
  return /\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\./.exec(host)?.[1];
}

const ACR_SCOPE = 'https://containerregistry.azure.net/.default';

/** Azure: a Microsoft Entra token. The registry exchanges it for its own refresh token (see `TokenClient`). */
export function acrCredentials(context: CloudContext): CredentialProvider {
  return cached(context.clock, async () => {
    const sdk = await importSdk<IdentityModule>('acr', '@azure/identity', context);
    const { token, expiresOnTimestamp } = await new sdk.DefaultAzureCredential().getToken(ACR_SCOPE);
    return { credentials: { entraToken: token }, until: expiresOnTimestamp };
  });
}

/** Keeps credentials until shortly before they expire. Callers at the same time share one request. */
function cached(
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
    throw new Error(`credentials: { ${kind} } needs an SDK that is not installed: npm install ${name}`, {
      cause: error,
    });
  }
}
