/** Names and counts what access control decides, for both listeners. */
import type { Asker } from '../../access/rules/identities.ts';
import type { RegistryError } from '../../oci/errors.ts';
import { ANONYMOUS, type Identity } from '../../request-context.ts';
import type { Metrics } from '../../telemetry/metrics.ts';

type Decision = 'allowed' | 'unauthorized' | 'denied' | 'throttled' | 'unavailable';

export function countDecision(metrics: Metrics, { kind }: Identity, decision: Decision): void {
  metrics.decisions.add({ identity_kind: kind, decision });
}

/** Begins the counters of refused logins at 0, so that a first one is seen as an increase. */
export function beginDecisions(metrics: Metrics): void {
  for (const decision of ['unauthorized', 'throttled'])
    metrics.accessDecisions.inc({ identity_kind: ANONYMOUS.kind, decision }, 0);
}

/** @param refusal of a request whose sender could not be found out */
export function decisionOf({ code }: RegistryError): Decision {
  if (code === 'TOOMANYREQUESTS') return 'throttled';
  return code === 'UNAUTHORIZED' ? 'unauthorized' : 'unavailable';
}

/** @param kind the one of several to name; by default, that of the credentials */
export function identityOf({ credentials, certificate }: Asker, kind?: Identity['kind']): Identity {
  if (credentials !== undefined && kind !== 'certificate') {
    return { kind: credentials.kind, name: credentials.name };
  }
  const name = certificate?.names[0];
  return name === undefined ? ANONYMOUS : { kind: 'certificate', name };
}
