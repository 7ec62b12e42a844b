/** Several mirrors that count as one. */
import { coordinatorUrl, listenAddress, network, registryUrl } from '../fields/addresses.ts';
import { path, secretRef } from '../fields/paths.ts';
import { list, section, text } from '../fields/plain.ts';
import { bandwidth, memory } from '../fields/quantities.ts';

const objectsSchema = section({
  bucket: text('the name of a bucket, such as millpond', /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/).describe(
    'Bucket of all nodes. It must exist.',
  ),
  endpoint: registryUrl()
    .optional()
    .describe('URL of an S3-compatible store; default: AWS. With one of your own the bucket is in the path.'),
  region: text('a region such as eu-west-1', /^[a-z0-9-]+$/)
    .prefault('us-east-1')
    .describe('Region of the bucket.'),
  prefix: text('a path that ends with a slash, such as millpond/', /^(?:[A-Za-z0-9._-]+\/)+$/)
    .prefault('millpond/')
    .describe('Begins the names of all objects, so that several fleets can share a bucket.'),
  credentials: section({
    accessKeyId: secretRef().describe('Access key.'),
    secretAccessKey: secretRef().describe('Secret of the access key.'),
  })
    .optional()
    .describe('Default: what the AWS SDK finds in environment, profile, role or web identity.'),
  ca: path()
    .optional()
    .describe('PEM bundle of certificate authorities to trust in addition to the usual ones, for the store.'),
  redirectAbove: memory()
    .prefault('none')
    .describe(
      'Stored blobs of this size and more are answered with a redirect to a presigned URL of the store; none: all are sent from here.',
    ),
  redirectFor: list(network())
    .prefault([])
    .describe('Networks whose clients reach the store, and trust its certificate; empty: all.'),
  maxUpload: bandwidth()
    .prefault('50MiB')
    .describe('Bytes a second that uploads to the store may take; none is no limit.'),
});

const coordinatorSchema = section({
  url: coordinatorUrl().describe(
    'URL of a Valkey, or of a Redis from version 7 on; valkeys: and rediss: are by TLS.',
  ),
  username: text('a user name').optional().describe('Its user; default: the default user.'),
  password: secretRef().optional().describe('Its password.'),
  ca: path()
    .optional()
    .describe('PEM bundle of certificate authorities to trust in addition to the usual ones, for it.'),
});

export const fleetSchema = section({
  objects: objectsSchema.describe('The object store that all nodes share.'),
  coordinator: coordinatorSchema
    .optional()
    .describe('Where nodes agree on who fetches what. Without it each node fetches for itself.'),
  advertise: registryUrl().optional().describe('URL by which the other nodes reach fleet.listen.'),
  listen: listenAddress()
    .prefault('0.0.0.0:5002')
    .describe('Where this node answers the others; only with a coordinator.'),
  egress: text('a name, such as site-a', /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
    .optional()
    .describe(
      'Name of the way out. Nodes of the same name share limits of upstreams; default: those that upstream counts as one.',
    ),
  secret: section({ file: path().describe('Its path. Read again when it changes.') }).describe(
    'File with the secret of the fleet: a line, or the new one and below it the old one. From openssl rand -hex 32.',
  ),
})
  .optional()
  .describe('Several mirrors that count as one. Without this section a mirror is alone.');
