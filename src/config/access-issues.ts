/** Mistakes of access control that the schema cannot express: keys that need each other, and rules that never decide. */
import { issuerUrlProblem } from '../access/oidc/issuer-url.ts';
import { ruleProblems } from '../access/rules/problems.ts';
import type { Issue } from './file/raw.ts';
import type { Config } from './schema.ts';
import { upstreamByHost } from './upstream-names.ts';

export interface AccessIssues {
  errors: Issue[];
  /** The configuration can be used, but lets in more than was meant, or less. */
  warnings: Issue[];
}

export function accessIssues(config: Config): AccessIssues {
  const { access } = config;
  if (access === undefined) return { errors: [], warnings: [] };
  const problems = ruleProblems(access.rules, {
    upstreams: upstreamByHost(config),
    users: access.users !== undefined,
    tokens: access.tokens !== undefined,
    certificates: [config.server, config.operations].some(({ tls }) => tls?.clientCa !== undefined),
    issuers: access.oidc,
  }).map(({ path, message, severity }) => ({
    severity,
    issue: { path: ['access', 'rules', ...path], part: 'value', message } satisfies Issue,
  }));
  const of = (wanted: string) =>
    problems.filter(({ severity }) => severity === wanted).map(({ issue }) => issue);
  return { errors: [...issuerIssues(access.oidc), ...of('error')], warnings: of('warning') };
}

function issuerIssues(issuers: NonNullable<Config['access']>['oidc']): Issue[] {
  return issuers.flatMap(({ name, issuer, jwksUrl, insecure }, at) => {
    const issues: Issue[] = [];
    const report = (key: string, message: string) =>
      issues.push({ path: ['access', 'oidc', at, key], part: 'value', message });
    for (const [key, url] of Object.entries({ issuer, jwksUrl })) {
      const problem = url === undefined ? undefined : issuerUrlProblem(url, insecure);
      if (problem !== undefined) report(key, problem);
    }
    const before = issuers.slice(0, at);
    if (before.some((other) => other.name === name))
      report('name', `${name} is the name of another issuer already`);
    if (before.some((other) => other.issuer === issuer))
      report('issuer', 'is configured already, under another name');
    return issues;
  });
}
