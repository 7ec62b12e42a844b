/** The two listeners: the registry side and the operations side. */
import { listenAddress, network, pathPrefix } from '../fields/addresses.ts';
import { list, section } from '../fields/plain.ts';
import { timeout } from '../fields/quantities.ts';

export const serverSchema = section({
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
  .describe('The registry side.');

export const operationsSchema = section({
  listen: listenAddress().prefault('127.0.0.1:5001').describe('Address of metrics, health and API.'),
})
  .prefault({})
  .describe('The operations side; keep it off the public network.');
