/** Access control, opened as the configuration says. Loaded only where the configuration has `access`. */
import { readFile } from 'node:fs/promises';
import { getCACertificates } from 'node:tls';
import type { AccessControl } from '../access/control/access-control.ts';
import { openAccessControl } from '../access/control/access-control.ts';
import type { Clock } from '../clock.ts';
import { accessIssues } from '../config/access-issues.ts';
import { formatPath } from '../config/file/raw.ts';
import type { Config } from '../config/schema.ts';
import type { Environment } from '../config/secrets.ts';
import { upstreamByHost } from '../config/upstream-names.ts';
import type { Logger } from '../telemetry/log.ts';
import { Connections } from '../upstream/network/connections.ts';
import { proxyFromEnvironment } from '../upstream/network/proxy-rule.ts';

const ISSUER_TIMEOUT_MS = 5_000;
const CONNECTIONS_TO_ISSUER = 2;

export interface AccessSurroundings {
  environment: Environment;
  /** `millpond/<version>`. */
  userAgent: string;
  sealed: () => boolean;
  clock: Clock;
  logger: Logger;
}

/** @throws the first error that keeps it from being used */
export async function openAccess(
  config: Config,
  access: NonNullable<Config['access']>,
  { environment, userAgent, sealed, clock, logger }: AccessSurroundings,
): Promise<{ control: AccessControl } & AsyncDisposable> {
  for (const { path, message } of accessIssues(config).warnings) {
    logger.warn({ key: formatPath(path) }, message);
  }
  await using stack = new AsyncDisposableStack();
  const control = await openAccessControl(access, {
    ...{ clock, logger, sealed },
    cacheDirectory: config.cache.directory,
    upstreams: upstreamByHost(config),
    sendTo: async ({ name, ca }) => {
      const authorities =
        ca === undefined ? {} : { ca: [...getCACertificates('default'), await readFile(ca, 'utf8')] };
      const connections = new Connections(
        {
          name: `oidc:${name}`,
          proxyFor: proxyFromEnvironment(environment),
          maxConnections: CONNECTIONS_TO_ISSUER,
          connectTimeoutMs: ISSUER_TIMEOUT_MS,
          headersTimeoutMs: ISSUER_TIMEOUT_MS,
          bodyTimeoutMs: ISSUER_TIMEOUT_MS,
        },
        { tls: authorities, proxyTls: authorities },
      );
      stack.defer(() => connections.close());
      return (url, { headers, ...options }) =>
        connections.request(url, { ...options, headers: { ...headers, 'User-Agent': userAgent } });
    },
  });
  stack.defer(() => control.close());
  const open = stack.move();
  return { control, [Symbol.asyncDispose]: () => open.disposeAsync() };
}
