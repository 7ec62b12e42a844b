/** How to log in to an upstream. */
import * as z from 'zod';
import { wrongType } from '../fields/codec.ts';
import { path, secretRef } from '../fields/paths.ts';
import { section } from '../fields/plain.ts';

const CREDENTIAL_KINDS =
  '{ username, password }, { identityToken }, { dockerConfig }, { helper }, { ecr } or { acr }';

const userName = z.union(
  [
    // RFC 7617: the first colon of Basic credentials ends the user name.
    z.string().regex(/^[^:\s]+$/, { error: 'must be a user name without colons and spaces' }),
    secretRef(),
  ],
  { error: 'must be a user name, { env: NAME } or { file: PATH }' },
);

/** What stands behind `docker-credential-` in the name of a program. */
function helperName() {
  const what = 'the name of a credential helper without docker-credential-, such as ecr-login';
  return z.string({ error: wrongType(what) }).regex(/^[A-Za-z0-9_.-]+$/, { error: wrongType(what) });
}

function awsRegion() {
  const what = 'an AWS region such as eu-west-1';
  return z.string({ error: wrongType(what) }).regex(/^[a-z0-9-]+$/, { error: wrongType(what) });
}

const kinds = [
  section({
    username: userName.describe('User name, in the clear or as a secret.'),
    password: secretRef().describe('Password or access token.'),
  }),
  section({
    identityToken: secretRef().describe('OAuth2 refresh token, for which a token server gives others.'),
  }),
  section({
    dockerConfig: path().describe('A Docker config.json, or a Kubernetes dockerconfigjson.'),
  }),
  section({
    helper: helperName().describe('Run docker-credential-<helper>.'),
  }),
  section({
    ecr: section({
      region: awsRegion().optional().describe('AWS region; default: the one in the name of the registry.'),
    }).describe('Ask Amazon ECR for a password, with whatever the AWS SDK finds.'),
  }),
  section({
    acr: section({}).describe('Log in to an Azure registry with whatever the Azure SDK finds.'),
  }),
] as const;

export const credentialsSchema = z
  .union([z.literal('none'), ...kinds], { error: `must be none or ${CREDENTIAL_KINDS}` })
  .prefault('none');
