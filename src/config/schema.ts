/** The configuration: every key, its meaning, its default, and the type that the program gets. */
import * as z from 'zod';
import type { LogLevel } from '../telemetry/log.ts';
import {
  amount,
  awsRegion,
  count,
  duration,
  flag,
  helperName,
  host,
  imageName,
  imagePattern,
  interval,
  list,
  listenAddress,
  network,
  oneOf,
  path,
  pathPrefix,
  pattern,
  platform,
  proxyUrl,
  referenceHost,
  registryUrl,
  repositoryPattern,
  secretRef,
  section,
  share,
  sizeOrNone,
  sizeOrShare,
  timeout,
  wrongType,
} from './fields.ts';
import { DEFAULT_UPSTREAM } from './file/presets.ts';

const LOG_LEVELS = [
  'trace',
  'debug',
  'info',
  'warn',
  'error',
  'fatal',
  'silent',
] as const satisfies readonly LogLevel[];

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

const credentialsSchemas = [
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

const proxySchema = section({
  url: proxyUrl().describe('Address of the proxy, with the user name if it wants one.'),
  password: secretRef().describe('Password for the proxy.'),
});

const freshnessFields = {
  tagTtl: duration(),
  immutableTags: list(pattern()),
  staleWhileRevalidate: duration(),
  staleIfError: duration(),
  onTagDeleted: oneOf(['forget', 'keep']),
  negativeTtl: duration(),
};

const freshnessSchema = section({
  tagTtl: freshnessFields.tagTtl
    .prefault('5m')
    .describe('A tag is served without asking upstream for this long.'),
  immutableTags: freshnessFields.immutableTags
    .prefault(['^v?\\d+\\.\\d+\\.\\d+$'])
    .describe('Tags that match one of these are never revalidated while cached.'),
  staleWhileRevalidate: freshnessFields.staleWhileRevalidate
    .prefault('0s')
    .describe('For this long past tagTtl a tag is served at once, and upstream asked in the background.'),
  staleIfError: freshnessFields.staleIfError
    .prefault('7d')
    .describe('A tag may be served this long past tagTtl while upstream fails.'),
  onTagDeleted: freshnessFields.onTagDeleted
    .prefault('forget')
    .describe('What becomes of a cached tag that upstream no longer has.'),
  negativeTtl: freshnessFields.negativeTtl
    .prefault('30s')
    .describe('A missing manifest is remembered as missing for this long.'),
  repositories: list(
    section({
      match: repositoryPattern().describe('Repositories that this is for, such as org/*.'),
      tagTtl: freshnessFields.tagTtl.optional().describe('As above, for these.'),
      immutableTags: freshnessFields.immutableTags.optional().describe('As above, for these.'),
      staleWhileRevalidate: freshnessFields.staleWhileRevalidate.optional().describe('As above, for these.'),
      staleIfError: freshnessFields.staleIfError.optional().describe('As above, for these.'),
      onTagDeleted: freshnessFields.onTagDeleted.optional().describe('As above, for these.'),
      negativeTtl: freshnessFields.negativeTtl.optional().describe('As above, for these.'),
    }),
  )
    .prefault([])
    .describe('What is different for some repositories; the first that matches counts.'),
});

const upstreamSchema = section({
  // Which registry stands behind a key depends on the key: load.ts fills in url, aliases and realmHosts.
  url: registryUrl().describe('Base URL; default: the preset of this name, else https:// and the name.'),
  aliases: list(referenceHost())
    .prefault([])
    .describe('Other names for this upstream in ns= and in paths; default: those of the preset.'),
  hosts: list(host()).prefault([]).describe('Host headers that mean this upstream (virtual hosts).'),
  realmHosts: list(host())
    .prefault([])
    .describe(
      "Token servers outside the registry's own domain that may get its credentials; default: those of the preset.",
    ),
  fallbackUrls: list(registryUrl())
    .prefault([])
    .describe('Base URLs that are tried in order when url is unreachable.'),
  credentials: z
    .union([z.literal('none'), ...credentialsSchemas], { error: `must be none or ${CREDENTIAL_KINDS}` })
    .prefault('none')
    .describe('How to log in to this upstream.'),
  ca: path().optional().describe('PEM bundle of certificate authorities to trust besides the usual ones.'),
  clientCertificate: section({
    cert: path().describe('PEM file of the certificate chain.'),
    key: path().describe('PEM file of the private key.'),
  })
    .optional()
    .describe('Certificate to present to this upstream.'),
  proxy: z
    .union([z.literal('none'), proxyUrl(), proxySchema], {
      error: 'must be none, an http:// or https:// URL without a password, or { url, password }',
    })
    .optional()
    .describe('Proxy for all requests of this upstream; default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY.'),
  allowPrivateAddresses: flag()
    .prefault(false)
    .describe('Redirects and token realms of this upstream may lead to private or loopback addresses.'),
  maxConnections: count().prefault(64).describe('Connections to this upstream at one time.'),
  segments: count().prefault(4).describe('Parallel ranges for one large cold blob; 1 turns it off.'),
  connectTimeout: timeout().prefault('10s').describe('Limit for opening a connection.'),
  headersTimeout: timeout().prefault('30s').describe('Limit for the wait until a reply begins.'),
  bodyTimeout: timeout()
    .prefault('30s')
    .describe('Limit for the wait between two pieces of a reply, never for all of it.'),
  freshness: freshnessSchema.prefault({}).describe('How long tags stay good.'),
  rateLimit: section({
    reserve: amount()
      .prefault(0)
      .describe(
        'When upstream says that no more pulls than this are left, they are kept for what is not cached.',
      ),
  })
    .prefault({})
    .describe('What is done before upstream limits pulls.'),
});

/** One upstream registry. Times in milliseconds, URLs without a slash at the end. */
export type UpstreamConfig = z.output<typeof upstreamSchema>;

export const configSchema = section({
  server: section({
    listen: listenAddress().prefault('127.0.0.1:5000').describe('Address of the registry side.'),
    drainTimeout: timeout()
      .prefault('30s')
      .describe('Running replies may take this long to finish when the server stops.'),
    clientTimeout: timeout()
      .prefault('60s')
      .describe('A client that takes no byte of its reply for this long is cut.'),
    revalidateFrom: list(network())
      .prefault([])
      .describe('Networks whose clients may ask for a tag to be revalidated, by Cache-Control: no-cache.'),
    accelRedirect: pathPrefix()
      .prefault('none')
      .describe(
        'Location of a front nginx that serves the folder blobs/ of the cache: warm blobs are its to send.',
      ),
  })
    .prefault({})
    .describe('The registry side.'),
  operations: section({
    listen: listenAddress().prefault('127.0.0.1:5001').describe('Address of metrics, health and API.'),
  })
    .prefault({})
    .describe('The operations side; keep it off the public network.'),
  cache: section({
    directory: path().prefault('./millpond-data').describe('Folder of the cached content and its index.'),
    maxSize: sizeOrShare()
      .prefault('50GiB')
      .describe('What the cache may hold: a size, or a share of its file system such as 80%.'),
    lowWatermark: share().prefault(0.9).describe('Where eviction stops, as a share of maxSize.'),
    keepFree: sizeOrNone()
      .prefault('1GiB')
      .describe('What the cache leaves free on its file system, whatever maxSize says.'),
    pin: list(imagePattern())
      .prefault([])
      .describe('Images that are never evicted, such as docker.io/library/alpine:*.'),
    scrubInterval: interval()
      .prefault('none')
      .describe('How often all stored content is read and checked by itself, such as 7d.'),
  })
    .prefault({})
    .describe('What is kept, and where.'),
  defaultUpstream: referenceHost()
    .prefault(DEFAULT_UPSTREAM)
    .describe('The upstream that a bare /v2/<name> means; one of upstreams or of their aliases.'),
  sealed: flag().prefault(false).describe('Never open an outgoing connection.'),
  upstreams: z
    .codec(
      z.record(referenceHost(), upstreamSchema, { error: wrongType('a map from hosts to settings') }),
      z.custom<ReadonlyMap<string, UpstreamConfig>>(),
      { decode: (record) => new Map(Object.entries(record)), encode: (map) => Object.fromEntries(map) },
    )
    .describe('By the host in an image reference; nothing else can be reached through the mirror.'),
  warm: list(
    section({
      images: list(imageName()).describe('Images to fetch completely.'),
      every: timeout().describe('How often; the first time is the start.'),
      platforms: list(platform())
        .prefault([])
        .describe('Of images for several platforms only these; none: all.'),
    }),
  )
    .prefault([])
    .describe('Images that are fetched before anybody asks for them, again and again.'),
  log: section({
    level: oneOf(LOG_LEVELS).prefault('info').describe('The least severe lines that are written.'),
    format: oneOf(['json', 'pretty'])
      .prefault('json')
      .describe('One JSON object a line, or text for people.'),
  })
    .prefault({})
    .describe('The log.'),
});

/**
 * A complete, valid configuration. Times in milliseconds, sizes in bytes, paths absolute;
 * `upstreams` in the order of the file.
 */
export type Config = z.output<typeof configSchema>;
