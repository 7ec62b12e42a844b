/** The two listeners: the registry side and the operations side. */
import { listenAddress, network, pathPrefix } from '../fields/addresses.ts';
import { list, section } from '../fields/plain.ts';
import { timeout } from '../fields/quantities.ts';

export const serverSchema = section({
  listen: listenAddress().prefault('127.0.0.1:5000').describe('Address of the registry side.'),
  drainTimeout: timeout()
    .prefault('30s')
    .describe('How long running replies may take to finish when the server stops.'),
  clientTimeout: timeout()
    .prefault('60s')
    .describe('A client that accepts no byte of its reply for this long is disconnected.'),
  revalidateFrom: list(network())
    .prefault([])
    .describe('Networks whose clients may force the revalidation of a tag with Cache-Control: no-cache.'),
  accelRedirect: pathPrefix()
    .prefault('none')
    .describe(
      'Location of an nginx in front of Millpond that serves the folder blobs/ of the cache; nginx then sends warm blobs itself.',
    ),
})
  .prefault({})
  .describe('The registry side.');

export const operationsSchema = section({
  listen: listenAddress()
    .prefault('127.0.0.1:5001')
    .describe('Address of the metrics, the health checks and the API.'),
})
  .prefault({})
  .describe('The operations side. It has no authentication: keep it off the public network.');
