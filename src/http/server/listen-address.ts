/** Addresses to listen on, and in words why one cannot be had and what to change. */

export type ListenAddress =
  | { host: string; port: number }
  /** A Unix socket. Its mode says who can connect. */
  | { socket: string; mode: number };

export class ListenError extends Error {
  override readonly name = 'ListenError';
}

/** @param key of the address in the configuration */
export function listenError(error: unknown, key: string, address: ListenAddress): ListenError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  const shown = 'socket' in address ? address.socket : `${address.host}:${address.port}`;
  const why = code === undefined ? String(error) : `${reasonOf(code, address)} (${code})`;
  return new ListenError(`cannot listen on ${shown}: ${why}; ${key} in the configuration names it`, {
    cause: error,
  });
}

function reasonOf(code: string, address: ListenAddress): string {
  switch (code) {
    case 'EADDRINUSE':
      return 'it is in use: stop the program that uses it, or choose another one';
    case 'EACCES':
      return 'socket' in address
        ? 'this user may not write in its folder'
        : 'this user may not use ports below 1024: choose another one';
    case 'EADDRNOTAVAIL':
      return 'this machine does not have the address: use one of its own, or 0.0.0.0 for all';
    case 'ENOTFOUND':
      return 'the name has no address here';
    case 'ENOENT':
      return 'its folder does not exist';
    default:
      return 'the system refuses it';
  }
}
