/**
 * Credentials out of a Docker `config.json`, which a Kubernetes `dockerconfigjson` secret is, too.
 *
 * Order and matching as docker/cli and go-containerregistry have them: the helper of the host, the common helper, `auths`.
 */
import type { CredentialProvider, Credentials } from './credentials.ts';

export interface DockerConfigContext {
  /** Gives the file's text; asked each time, so that a change is seen. */
  read: () => Promise<string>;
  /** All names under which `docker login` may have stored this registry. */
  hosts: readonly string[];
  /** The credentials that a helper has for a server. */
  helper: (name: string, server: string) => CredentialProvider;
}

const HELPER_NAME = /^[A-Za-z0-9_.-]+$/;

export function dockerConfigCredentials({ read, hosts, helper }: DockerConfigContext): CredentialProvider {
  const providers = new Map<string, CredentialProvider>();
  const throughHelper: (name: unknown, server: string) => CredentialProvider = (name, server) => {
    if (typeof name !== 'string' || !HELPER_NAME.test(name)) {
      throw new Error('a credential helper in the Docker configuration has no usable name');
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

/** Docker Hub's entry has a name of its own. */
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
  // Docker pads what it encodes with zeros.
  return colon < 1
    ? undefined
    : { username: auth.slice(0, colon), password: auth.slice(colon + 1).replace(/\0+$/, '') };
}

/** Keys are `host`, `host:port`, or URLs such as `https://host/v1/`. */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}

function parse(text: string): Record<string, unknown> {
  try {
    return object(JSON.parse(text));
  } catch {
    throw new Error('the Docker configuration is no JSON'); // without a part of it: it holds secrets
  }
}

function object(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}
