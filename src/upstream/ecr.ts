/**
 * Credentials for Amazon ECR, from whatever the AWS SDK finds: environment, profile, container or instance role.
 *
 * `GetAuthorizationToken` gives a name and password that are good for twelve hours.
 */
import type { Clock } from '../clock.ts';
import type { CredentialProvider, Credentials } from './credentials.ts';

const RENEW_EARLY_MS = 15 * 60_000;
const RERUN_AFTER_MS = 10_000;
const LIFETIME_MS = 12 * 3_600_000;
const PACKAGE = '@aws-sdk/client-ecr';

/** What is used of the SDK, which is not installed with Millpond. */
interface EcrModule {
  ECRClient: new (options: { region?: string }) => { send(command: unknown): Promise<EcrAnswer> };
  GetAuthorizationTokenCommand: new (input: object) => unknown;
}

interface EcrAnswer {
  authorizationData?: { authorizationToken?: string; expiresAt?: Date }[];
}

export interface EcrContext {
  clock: Clock;
  /** Imports a package by its name. @throws the runtime's error if it is not installed */
  importPackage: (name: string) => Promise<unknown>;
}

/** @param host `<account>.dkr.ecr.<region>.amazonaws.com`, whose region is asked unless another is given */
export function ecrCredentials(
  { host, region = regionOf(host) }: { host: string; region?: string | undefined },
  { clock, importPackage }: EcrContext,
): CredentialProvider {
  let kept: { at: number; until: number; credentials: Credentials } | undefined;
  let asking: Promise<Credentials> | undefined;
  const ask = async (): Promise<Credentials> => {
    const sdk = await importSdk(importPackage);
    const client = new sdk.ECRClient(region === undefined ? {} : { region });
    const at = clock.now();
    const { authorizationData } = await client.send(new sdk.GetAuthorizationTokenCommand({}));
    const { authorizationToken = '', expiresAt } = authorizationData?.[0] ?? {};
    const [username = '', password = ''] = Buffer.from(authorizationToken, 'base64')
      .toString('utf8')
      .split(':');
    if (username === '' || password === '') throw new Error('Amazon ECR answered without a token');
    const until = expiresAt?.getTime() ?? at + LIFETIME_MS;
    kept = { at, until, credentials: { username, password } };
    return kept.credentials;
  };
  return async ({ refused } = { refused: false }) => {
    const now = clock.now();
    if (kept !== undefined && now >= kept.at) {
      const isGood = now < kept.until - RENEW_EARLY_MS && !(refused && now - kept.at >= RERUN_AFTER_MS);
      if (isGood) return kept.credentials;
    }
    asking ??= ask().finally(() => {
      asking = undefined;
    });
    return asking;
  };
}

async function importSdk(importPackage: EcrContext['importPackage']): Promise<EcrModule> {
  try {
    return (await importPackage(PACKAGE)) as EcrModule;
  } catch (error) {
    throw new Error(`credentials: { ecr } needs the AWS SDK: npm install ${PACKAGE}`, { cause: error });
  }
}

function regionOf(host: string): string | undefined {
  return /\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\./.exec(host)?.[1];
}
