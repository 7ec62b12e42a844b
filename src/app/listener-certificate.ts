/** Opens the certificate of a listener. */
import type { Clock } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { ServerCertificate } from '../http/server/certificate.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/**
 * @param name of the certificate in the metrics
 * @returns undefined: the listener speaks plain HTTP @throws an error of the files that `tls` names
 */
export async function openCertificate(
  name: string,
  tls: Config['server']['tls'],
  { metrics, ...context }: { clock: Clock; logger: Logger; metrics: Metrics },
): Promise<ServerCertificate | undefined> {
  if (tls === undefined) return undefined;
  const { ServerCertificate } = await import('../http/server/certificate.ts');
  const onExpiry = (at: number) => metrics.certificateExpiry.set({ certificate: name }, at / 1000);
  return ServerCertificate.open(tls, { ...context, onExpiry });
}
