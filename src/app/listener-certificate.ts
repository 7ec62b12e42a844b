/** Opens the certificate of a listener. */
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { ServerCertificate } from '../http/server/certificate.ts';
import type { Logger } from '../telemetry/log.ts';

/** @returns undefined: the listener speaks plain HTTP @throws an error of the files that `tls` names */
export async function openCertificate(
  tls: Config['server']['tls'],
  context: { clock: Clock; logger: Logger },
): Promise<ServerCertificate | undefined> {
  if (tls === undefined) return undefined;
  const { ServerCertificate } = await import('../http/server/certificate.ts');
  return ServerCertificate.open(tls, context);
}
