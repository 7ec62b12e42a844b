/**
 * Credentials from a Docker `config.json`. A Kubernetes `dockerconfigjson` secret has the same format.
 *
 * Order and matching are those of docker/cli and go-containerregistry: the helper of the host (`credHelpers`), the
 * common helper (`credsStore`), `auths`.
 */
import type { CredentialProvider, Credentials } from './credentials.ts';

export interface DockerConfigContext {
  /** Reads the file. Called each time, so that a change takes effect. */
  read: () => Promise<string>;
  /** All names under which `docker login` may have stored this registry, in the order in which to look. */
  hosts: readonly string[];
  /** Creates the provider that runs a helper for a server. */
  helper: (name: string, server: string) => CredentialProvider;
}

const HELPER_NAME = /^[A-Za-z0-9_.-]+$/;

export function dockerConfigCredentials({ read, hosts, helper }: DockerConfigContext): CredentialProvider {
  const providers = new Map<string, CredentialProvider>();
  const throughHelper: (name: unknown, server: string) => CredentialProvider = (name, server) => {
    if (typeof name !== 'string' || !HELPER_NAME.test(name)) {
      throw new Error('the Docker configuration names a credential helper that is not a valid program name');
    }
    const known = providers.get(`${name} ${server}`) ?? helper(name, server);
    providers.set(`${name} ${server}`, known);
    return known;
  };
  return async (options) => {
    const config = parse(await read());
    const helpers = object(config['credHelpers']);
    const host = hosts.find((name) => helpers[name] !== undefined);
    if (host !== undefined) return throughHelper(helpers[host], host)(options);
    const store = config['credsStore'];
    if (typeof store === 'string' && store !== '') {
      for (const server of hosts) {
        const found = await throughHelper(store, serverOf(server))(options);
        if (found !== undefined) return found;
      }
    }
    return fromAuths(object(config['auths'] ?? config), hosts);
  };
}

/** The name that `docker login` stores for a registry. Docker Hub has a special one. */
export function serverOf(host: string): string {
  return host === 'docker.io' || host === 'index.docker.io' ? 'https://index.docker.io/v1/' : host;
}

function fromAuths(auths: Record<string, unknown>, hosts: readonly string[]): Credentials | undefined {
  const entries = Object.entries(auths).map(([key, entry]) => [hostOf(key), object(entry)] as const);
  for (const host of hosts) {
    const entry = entries.find(([name]) => name === host)?.[1];
    const credentials = entry && fromEntry(entry);
    if (credentials !== undefined) return credentials;
  }
  return undefined;
}

function fromEntry(entry: Record<string, unknown>): Credentials | undefined {
  const text = (key: string) => {
    const value = entry[key];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const [identityToken, registryToken] = [text('identitytoken'), text('registrytoken')];
  if (identityToken !== undefined) return { identityToken };
  if (registryToken !== undefined) return { registryToken };
  const [username, password] = [text('username'), text('password')];
  if (username !== undefined && password !== undefined) return { username, password };
  const auth = Buffer.from(text('auth') ?? '', 'base64').toString('utf8');
  const colon = auth.indexOf(':');
  // Docker pads the password with zero bytes before it encodes it.
  return colon < 1
    ? undefined
    : { username: auth.slice(0, colon), password: auth.slice(colon + 1).replace(/\0+$/, '') };
}

/** The host of a key, which is `host`, `host:port`, or a URL such as `https://host/v1/`. */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}

function parse(text: string): Record<string, unknown> {
  try {
    return object(JSON.parse(text));
  } catch {
    throw new Error('the Docker configuration is not valid JSON'); // quote nothing of it: it contains secrets
  }
}

function object(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}
