/** The two listeners: the registry side and the operations side. */
import {
  externalUrl,
  host,
  listenAddress,
  network,
  pathPrefix,
  socketOrAddress,
} from '../fields/addresses.ts';
import { path } from '../fields/paths.ts';
import { fileMode, list, oneOf, section } from '../fields/plain.ts';
import { bandwidth, timeout } from '../fields/quantities.ts';

const tlsSchema = section({
  certificate: path().describe('PEM file of the certificate chain; read again when it changes.'),
  key: path().describe('PEM file of the private key; read again when it changes.'),
  clientCa: path()
    .optional()
    .describe(
      'PEM file of the authorities whose client certificates are identities, with all intermediate ones.',
    ),
  clientCrl: path().optional().describe('PEM file of their revocation lists.'),
  clientCertificate: oneOf(['optional', 'required'])
    .prefault('optional')
    .describe('Whether a client without a certificate that can be verified is served.'),
});

export const serverSchema = section({
  listen: listenAddress().prefault('127.0.0.1:5000').describe('Address of the registry side.'),
  tls: tlsSchema.optional().describe('Certificate of the registry side; default: plain HTTP.'),
  externalUrl: externalUrl()
    .optional()
    .describe('URL by which clients reach the registry side; default: what each client used.'),
  trustedProxies: list(network())
    .prefault([])
    .describe('Front servers that say who the client is. Their own address is then never that of a client.'),
  forwardedHeader: oneOf(['x-forwarded-for', 'forwarded'])
    .prefault('x-forwarded-for')
    .describe('The header in which the trusted proxies name the client; the other one is ignored.'),
  drainTimeout: timeout()
    .prefault('30s')
    .describe('How long running replies may take to finish when the server stops.'),
  clientTimeout: timeout()
    .prefault('60s')
    .describe('A client that accepts no byte of its reply for this long is disconnected.'),
  maxUpstreamBandwidth: bandwidth()
    .prefault('none')
    .describe('Most body bytes a second from all upstreams together.'),
  revalidateFrom: list(network())
    .prefault([])
    .describe('Networks whose clients may force the revalidation of a tag with Cache-Control: no-cache.'),
  accelRedirect: pathPrefix()
    .prefault('none')
    .describe(
      'Location of an nginx in front of Millpond that serves the folder blobs/ of the cache; nginx then sends warm blobs itself. It must be one of trustedProxies.',
    ),
})
  .prefault({})
  .describe('The registry side.');

export const operationsSchema = section({
  listen: socketOrAddress()
    .prefault('127.0.0.1:5001')
    .describe('Address of the metrics, the health checks and the API, or unix: and the path of a socket.'),
  socketMode: fileMode()
    .prefault('0600')
    .describe('Mode of the socket. Anyone who can open it may do everything.'),
  tls: tlsSchema.optional().describe('Certificate of the operations side; default: plain HTTP.'),
  hosts: list(host())
    .prefault([])
    .describe('Names by which clients reach the operations side, besides localhost and IP addresses.'),
})
  .prefault({})
  .describe('The operations side.');
