/** Mistakes of policies that the schema cannot express. */
import { patternProblem } from '../access/rules/repositories.ts';
import { parseWho } from '../access/rules/who.ts';
import { parseDigest } from '../oci/digest.ts';
import { partsOf } from '../policy/decision/exceptions.ts';
import { parseIdentity } from '../policy/parts/signature/notation/identities.ts';
import type { Issue } from './file/raw.ts';
import type { Config } from './schema.ts';
import { upstreamByHost } from './upstream-names.ts';

export function policyIssues(config: Config): Issue[] {
  const upstreams = upstreamByHost(config);
  return config.policies.flatMap(
    ({ name, match, who, mode, deny, minimumAge, signature, scan, except }, at, all) => {
      const issues: Issue[] = [];
      const report = (path: Issue['path'], message: string) =>
        issues.push({ path: ['policies', at, ...path], part: 'value', message });
      const checkPattern = (path: Issue['path'], pattern: string) => {
        const problem = patternProblem(pattern, upstreams);
        if (problem !== undefined) report(path, problem);
      };
      if (all.slice(0, at).some((other) => other.name === name))
        report(['name'], `${name} is the name of another policy already`);
      for (const [index, one] of (who === undefined ? [] : [who].flat()).entries()) {
        const path = Array.isArray(who) ? ['who', index] : ['who'];
        if (parseWho(one) === undefined)
          report(
            path,
            'must be anonymous, *, user:NAME, token:NAME, oidc:NAME or certificate:CN=… (DNS:… URI:… EMAIL:…)',
          );
        else if (one !== 'anonymous' && config.access === undefined)
          report(path, 'names nobody, because there is no access control: add access, or leave who out');
      }
      if (match.length === 0) report(['match'], 'matches nothing: leave it out to match everything');
      for (const [index, pattern] of match.entries()) checkPattern(['match', index], pattern);
      if ([deny, minimumAge, signature, scan].every((part) => part === undefined))
        report([], 'asks for nothing: add deny, minimumAge, signature or scan');
      if (scan !== undefined) {
        const { trivy, trivyServer, adapter } = scan;
        if ([trivy, trivyServer, adapter].every((way) => way === undefined))
          report(['scan'], 'names no scanner: add trivy, trivyServer or adapter');
        if (adapter !== undefined && (trivy ?? trivyServer) !== undefined)
          report(['scan', 'adapter'], 'is another scanner beside trivy: leave one of them out');
        if (adapter !== undefined && (scan.secrets || scan.misconfigurations))
          report(
            ['scan', 'adapter'],
            'reports no secrets and misconfigurations: use trivy, or leave them out',
          );
        if (adapter !== undefined && scan.ifNothingFound === 'deny')
          report(['scan', 'ifNothingFound'], 'cannot be told by an adapter: use trivy, or leave it out');
      }
      if (signature !== undefined) {
        const { cosign, keyless, notation } = signature;
        if (mode === 'enforce' && cosign === undefined && keyless === undefined && notation === undefined)
          report(
            ['signature'],
            'says not whose: add cosign, keyless or notation, or set mode: audit to see what is signed',
          );
        if (cosign?.keys.length === 0)
          report(['signature', 'cosign', 'keys'], 'is empty, so nothing is let in');
        if (notation?.trustStore.length === 0)
          report(['signature', 'notation', 'trustStore'], 'is empty, so nothing is let in');
        for (const [index, identity] of (notation?.identities ?? []).entries()) {
          if (parseIdentity(identity) === undefined)
            report(
              ['signature', 'notation', 'identities', index],
              'is not an identity: write x509.subject: C=US, ST=WA, O=acme',
            );
        }
        if (notation?.identities.length === 0)
          report(['signature', 'notation', 'identities'], 'is empty, so nothing is let in');
      }
      if (deny !== undefined && deny.digests.length + deny.repositories.length === 0)
        report(['deny'], 'denies nothing: add digests or repositories');
      for (const [index, pattern] of (deny?.repositories ?? []).entries())
        checkPattern(['deny', 'repositories', index], pattern);
      for (const [index, { image }] of except.entries()) {
        const { pattern, digest } = partsOf(image);
        if (pattern !== undefined) checkPattern(['except', index, 'image'], pattern);
        if (digest !== undefined && parseDigest(digest) === undefined)
          report(['except', index, 'image'], `${digest} is not a digest: write all of it, in lower case`);
      }
      return issues;
    },
  );
}
