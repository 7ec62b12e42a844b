/** One upstream registry. */
import * as z from 'zod';
import { host, proxyUrl, referenceHost, registryUrl } from '../fields/addresses.ts';
import { path, secretRef } from '../fields/paths.ts';
import { amount, count, flag, list, section } from '../fields/plain.ts';
import { bandwidth, timeout } from '../fields/quantities.ts';
import { credentialsSchema } from './credentials.ts';
import { freshnessSchema } from './freshness.ts';

const proxySchema = section({
  url: proxyUrl().describe('URL of the proxy, with the user name if it needs one.'),
  password: secretRef().describe('Password for the proxy.'),
});

export const upstreamSchema = section({
  // Has no defaults for url, aliases and realmHosts here: they depend on the host, and file/presets.ts fills them in.
  url: registryUrl().describe('Base URL; default: the preset of this host, or https:// and the host.'),
  aliases: list(referenceHost())
    .prefault([])
    .describe('Other names of this upstream in ns= and in paths; default: those of the preset.'),
  hosts: list(host()).prefault([]).describe('Host headers that select this upstream (virtual hosts).'),
  realmHosts: list(host())
    .prefault([])
    .describe(
      "Token servers outside the registry's own domain that may receive its credentials; default: those of the preset.",
    ),
  fallbackUrls: list(registryUrl())
    .prefault([])
    .describe('Base URLs to try in order when url is unreachable.'),
  credentials: credentialsSchema.describe('How to log in to this upstream.'),
  ca: path()
    .optional()
    .describe('PEM bundle of certificate authorities to trust in addition to the usual ones.'),
  clientCertificate: section({
    cert: path().describe('PEM file of the certificate chain.'),
    key: path().describe('PEM file of the private key.'),
  })
    .optional()
    .describe('Certificate to present to this upstream.'),
  proxy: z
    .union([z.literal('none'), proxyUrl(), proxySchema], {
      error: 'must be none, an http:// or https:// URL of a host and port, or { url, password }',
    })
    .optional()
    .describe(
      'Proxy for all requests to this upstream; default: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.',
    ),
  allowPrivateAddresses: flag()
    .prefault(false)
    .describe('Redirects and token realms of this upstream may lead to private or loopback addresses.'),
  maxConnections: count().prefault(64).describe('Most connections to this upstream at the same time.'),
  segments: count()
    .prefault(4)
    .describe('Most parallel range requests for one large cold blob; 1 turns them off.'),
  maxBandwidth: bandwidth()
    .prefault('none')
    .describe('Most body bytes a second from this upstream, of all its blobs together.'),
  connectTimeout: timeout().prefault('10s').describe('How long opening a connection may take.'),
  headersTimeout: timeout().prefault('30s').describe('How long upstream may take until its reply begins.'),
  bodyTimeout: timeout()
    .prefault('30s')
    .describe('How long upstream may pause within a reply; the whole reply may take longer.'),
  freshness: freshnessSchema.prefault({}).describe('How long tags are served without asking upstream.'),
  rateLimit: section({
    reserve: amount()
      .prefault(0)
      .describe(
        'When upstream says that no more pulls than this are left, they are kept for content that is not cached.',
      ),
  })
    .prefault({})
    .describe('How to save pulls when upstream limits them.'),
});
