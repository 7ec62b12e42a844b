/** Mistakes of policies that the schema cannot express. */
import { patternProblem } from '../access/rules/repositories.ts';
import { parseDigest } from '../oci/digest.ts';
import { partsOf } from '../policy/exceptions.ts';
import type { Issue } from './file/raw.ts';
import type { Config } from './schema.ts';
import { upstreamByHost } from './upstream-names.ts';

export function policyIssues(config: Config): Issue[] {
  const upstreams = upstreamByHost(config);
  return config.policies.flatMap(({ name, match, deny, minimumAge, except }, at, all) => {
    const issues: Issue[] = [];
    const report = (path: Issue['path'], message: string) =>
      issues.push({ path: ['policies', at, ...path], part: 'value', message });
    const checkPattern = (path: Issue['path'], pattern: string) => {
      const problem = patternProblem(pattern, upstreams);
      if (problem !== undefined) report(path, problem);
    };
    if (all.slice(0, at).some((other) => other.name === name))
      report(['name'], `${name} is the name of another policy already`);
    if (match.length === 0) report(['match'], 'matches nothing: leave it out to match everything');
    for (const [index, pattern] of match.entries()) checkPattern(['match', index], pattern);
    if (deny === undefined && minimumAge === undefined)
      report([], 'asks for nothing: add deny or minimumAge');
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
  });
}
