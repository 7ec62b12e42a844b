/** How to log in to an upstream. */
import * as z from 'zod';
import { wrongType } from '../fields/codec.ts';
import { path, secretRef } from '../fields/paths.ts';
import { section } from '../fields/plain.ts';

const CREDENTIAL_KINDS =
  '{ username, password }, { identityToken }, { dockerConfig }, { helper }, { ecr } or { acr }';

const userName = z.union(
  [
    // Refuses a colon: in Basic credentials, the first colon ends the user name (RFC 7617, section 2).
    z.string().regex(/^[^:\s]+$/, { error: 'must be a user name without colons or spaces' }),
    secretRef(),
  ],
  { error: 'must be a user name, { env: NAME } or { file: PATH }' },
);

/** The name of a program without its prefix `docker-credential-`. */
function helperName() {
  const what = 'the name of a credential helper without the prefix docker-credential-, such as ecr-login';
  return z.string({ error: wrongType(what) }).regex(/^[A-Za-z0-9_.-]+$/, { error: wrongType(what) });
}

function awsRegion() {
  const what = 'an AWS region such as eu-west-1';
  return z.string({ error: wrongType(what) }).regex(/^[a-z0-9-]+$/, { error: wrongType(what) });
}

const kinds = [
  section({
    username: userName.describe('User name, as it is or as a secret.'),
    password: secretRef().describe('Password or access token.'),
  }),
  section({
    identityToken: secretRef().describe(
      'OAuth2 refresh token, which a token server exchanges for access tokens.',
    ),
  }),
  section({
    dockerConfig: path().describe('Path of a Docker config.json or of a Kubernetes dockerconfigjson.'),
  }),
  section({
    helper: helperName().describe('Run docker-credential-<helper> to get the credentials.'),
  }),
  section({
    ecr: section({
      region: awsRegion()
        .optional()
        .describe('AWS region; default: the region in the host name of the registry.'),
    }).describe('Ask Amazon ECR for a password with the credentials that the AWS SDK finds.'),
  }),
  section({
    acr: section({}).describe('Log in to an Azure registry with the credentials that the Azure SDK finds.'),
  }),
] as const;

export const credentialsSchema = z
  .union([z.literal('none'), ...kinds], { error: `must be none or ${CREDENTIAL_KINDS}` })
  .prefault('none');
