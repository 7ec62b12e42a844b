/**
 * Issuers that give a token to everybody who has an account there. A rule that does not say whose tokens it means lets
 * in any workflow of any account. These are the claims that tell accounts apart.
 */

export interface PublicIssuer {
  readonly name: string;
  readonly matches: RegExp;
  /** The claims to use, as a message puts them: ids, because a name can be given up and taken by another. */
  readonly advice: string;
  /** Claims that each identify the owner of a token. */
  readonly owners: readonly string[];
  /** Claims that look like numbers and are strings in these tokens. */
  readonly digits: readonly string[];
}

const PUBLIC_ISSUERS: readonly PublicIssuer[] = [
  {
    name: 'GitHub Actions',
    // An enterprise may have an issuer of its own below it.
    matches: /^https:\/\/token\.actions\.githubusercontent\.com(?:\/|$)/,
    advice: 'repository_owner_id or repository_id',
    owners: [
      'repository_owner_id',
      'repository_id',
      'repository_owner',
      'repository',
      'sub',
      'enterprise_id',
      'enterprise',
      'actor_id',
      'job_workflow_ref',
      'workflow_ref',
    ],
    digits: ['repository_owner_id', 'repository_id', 'enterprise_id', 'actor_id', 'run_id'],
  },
  {
    name: 'GitLab.com',
    matches: /^https:\/\/gitlab\.com\/?$/,
    advice: 'project_id or namespace_id',
    owners: [
      'project_id',
      'namespace_id',
      'project_path',
      'namespace_path',
      'sub',
      'user_id',
      'user_login',
      'user_email',
      'ci_config_ref_uri',
    ],
    digits: ['project_id', 'namespace_id', 'user_id', 'pipeline_id', 'job_id'],
  },
  {
    name: 'Google',
    matches: /^https:\/\/accounts\.google\.com\/?$/,
    advice: 'sub',
    owners: ['sub', 'email', 'hd'],
    digits: ['sub'],
  },
  {
    name: 'Azure',
    matches:
      /^https:\/\/login\.microsoftonline\.com\/(?:common|organizations|consumers|\{tenantid\})(?:\/|$)/,
    advice: 'tid together with sub',
    owners: ['tid', 'sub', 'oid'],
    digits: [],
  },
];

export function publicIssuer(issuer: string): PublicIssuer | undefined {
  return PUBLIC_ISSUERS.find(({ matches }) => matches.test(issuer));
}
