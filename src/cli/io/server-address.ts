/** Finds the operations listener that a command speaks to. */
import { loadConfig } from '../../config/load.ts';
import type { Config } from '../../config/schema.ts';
import { OperationsClient } from './operations-client.ts';
import { chosenConfigFile, DEFAULT_SERVER, parseServer, type ServerOptions } from './options.ts';
import type { Surroundings } from './surroundings.ts';

/**
 * `--server` comes first, then `MILLPOND_SERVER`, then the configuration file of a mirror on this machine.
 *
 * @throws {Error} MILLPOND_SERVER is no address @throws {ConfigError} the configuration cannot be used
 */
export async function operationsClient(
  options: ServerOptions,
  surroundings: Surroundings,
): Promise<OperationsClient> {
  return new OperationsClient({ ...options, server: await serverOf(options, surroundings) }, surroundings);
}

async function serverOf(options: ServerOptions, surroundings: Surroundings): Promise<string> {
  const { environment, cwd } = surroundings;
  if (options.server !== undefined) return options.server;
  const named = environment['MILLPOND_SERVER'] || undefined;
  if (named !== undefined) {
    const server = parseServer(named);
    if (server !== undefined) return server;
    throw new Error(
      `MILLPOND_SERVER is no address of a mirror: ${named}; write it like localhost:5001, ${DEFAULT_SERVER} or unix:/run/millpond.sock`,
    );
  }
  const file = chosenConfigFile(options, surroundings);
  return addressIn(await loadConfig({ file, cwd, environment, ignoreReferences: true }));
}

/** The listener's own address; of one that listens on all addresses, that of this machine. */
function addressIn({ operations: { listen, tls } }: Config): string {
  if ('socket' in listen) return `unix:${listen.socket}`;
  const { host, port } = listen;
  const reachable = host === '0.0.0.0' || host === '::' ? 'localhost' : host;
  return `${tls === undefined ? 'http' : 'https'}://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
}
