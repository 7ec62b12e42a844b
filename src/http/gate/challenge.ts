/** Tells clients where to get a token. Source: RFC 6750, 3, and the registry token protocol of distribution. */
import type { IncomingMessage } from 'node:http';
import type { Client } from '../../access/network/client-address.ts';
import { RegistryError } from '../../oci/errors.ts';

export const TOKEN_PATH = '/token';
const SERVICE = 'millpond';

/** `insufficient_scope`: an anonymous token is good, and not enough. */
type ChallengeError = 'invalid_token' | 'insufficient_scope';

export interface Challenge {
  message: string;
  /** Absent: the request had no token. */
  error?: ChallengeError | undefined;
  /** Whether the request is about a repository: then the scope to ask for is named. */
  scoped?: boolean;
}

export class Challenger {
  readonly #externalUrl: string | undefined;

  /** @param externalUrl without it, the host and port that the client used are named */
  constructor(externalUrl: string | undefined) {
    this.#externalUrl = externalUrl;
  }

  unauthorized(message: IncomingMessage, client: Client, challenge: Challenge): RegistryError {
    const scope = challenge.scoped === true ? scopeOf(message.url ?? '') : undefined;
    const parts = [
      `realm="${this.#baseOf(message, client)}${TOKEN_PATH}"`,
      `service="${SERVICE}"`,
      ...(scope === undefined ? [] : [`scope="${scope}"`]),
      ...(challenge.error === undefined ? [] : [`error="${challenge.error}"`]),
    ];
    return new RegistryError('UNAUTHORIZED', {
      message: challenge.message,
      headers: { 'WWW-Authenticate': `Bearer ${parts.join(',')}` },
    });
  }

  #baseOf({ socket }: IncomingMessage, { secure, host }: Client): string {
    if (this.#externalUrl !== undefined) return this.#externalUrl;
    const { localAddress = 'localhost', localPort } = socket;
    const bound = localAddress.includes(':') ? `[${localAddress}]` : localAddress;
    return `${secure ? 'https' : 'http'}://${host ?? `${bound}:${localPort}`}`;
  }
}

/**
 * The scope in the client's own spelling of the name: containerd compares it with that of the token it has, and sends
 * the old token again if they differ.
 */
function scopeOf(url: string): string | undefined {
  const [path = ''] = url.split('?');
  const [, name] = /\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\/[^/]+$/.exec(path) ?? [];
  return name === undefined ? undefined : `repository:${name}:pull`;
}
