/** One upstream registry. */
import * as z from 'zod';
import { host, proxyUrl, referenceHost, registryUrl } from '../fields/addresses.ts';
import { path, secretRef } from '../fields/paths.ts';
import { amount, count, flag, list, section } from '../fields/plain.ts';
import { timeout } from '../fields/quantities.ts';
import { credentialsSchema } from './credentials.ts';
import { freshnessSchema } from './freshness.ts';

const proxySchema = section({
  url: proxyUrl().describe('Address of the proxy, with the user name if it wants one.'),
  password: secretRef().describe('Password for the proxy.'),
});

export const upstreamSchema = section({
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
  credentials: credentialsSchema.describe('How to log in to this upstream.'),
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
