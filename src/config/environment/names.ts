/** Tells the variables that set a key from those that others have made. */

export const PREFIX = 'MILLPOND_';

/** Read by the command line. None of them sets a key. */
const OF_THE_COMMAND_LINE: ReadonlySet<string> = new Set([
  'MILLPOND_CONFIG',
  'MILLPOND_SERVER',
  'MILLPOND_TOKEN',
]);

/**
 * What Kubernetes gives to every container of a namespace that has a Service called `millpond` or `millpond-…`. They must
 * not keep a server from starting. `MILLPOND_PORT` counts only with such a value: a user may mean a key by it.
 */
const OF_KUBERNETES =
  /_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)=|_PORT(?:_\d+_(?:TCP|UDP|SCTP))?=(?:tcp|udp|sctp):|_PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO|PORT|ADDR)=/;

/**
 * The variables that mean to set a key, with their values, in alphabetical order. An empty one is as good as none:
 * `MILLPOND_SEALED=${SEALED:-}` is the way of a compose file to leave a setting alone.
 */
export function settingsIn(environment: Readonly<Record<string, string | undefined>>): [string, string][] {
  return Object.entries(environment)
    .filter((entry): entry is [string, string] => entry[0].startsWith(PREFIX) && (entry[1] ?? '') !== '')
    .filter(([name, value]) => !OF_THE_COMMAND_LINE.has(name) && !OF_KUBERNETES.test(`${name}=${value}`))
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
