/** Which proxy a request goes through: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` as curl and Go read them. Pure. */
import { BlockList, isIP } from 'node:net';

export interface Proxy {
  /** `http:` or `https:`; without credentials, so that it may be shown. */
  url: URL;
  /** The value of `Proxy-Authorization`, asked for with each request; undefined: none is sent. */
  authorization: () => Promise<string | undefined>;
}

/** The proxy for a request to `target`, the same object for the same proxy; undefined: it is asked directly. */
export type ProxyRule = (target: URL) => Proxy | undefined;

/** What the environment says. @throws {Error} it names a proxy that cannot be used */
export function proxyFromEnvironment(environment: Readonly<Record<string, string | undefined>>): ProxyRule {
  const read = (name: string) => environment[name.toLowerCase()] ?? environment[name] ?? '';
  const byProtocol = new Map<string, Proxy>();
  for (const [protocol, name] of [
    ['https:', 'HTTPS_PROXY'],
    ['http:', 'HTTP_PROXY'],
  ] as const) {
    const written = read(name).trim();
    if (written === '') continue;
    const url = URL.parse(written.includes('://') ? written : `http://${written}`);
    // Not shown: a password may be in it.
    if (url === null || !['http:', 'https:'].includes(url.protocol) || url.hostname === '')
      throw new Error(`${name} is no http:// or https:// URL`);
    byProtocol.set(protocol, proxyAt(url));
  }
  const exempt = exemptions(read('NO_PROXY'));
  return (target) =>
    isLoopback(hostOf(target)) || exempt.some((matches) => matches(hostOf(target), portOf(target)))
      ? undefined
      : byProtocol.get(target.protocol);
}

/**
 * The one proxy for everything, whatever the environment says.
 *
 * @param url may hold a user name
 */
export function proxyForAll(url: string, password?: () => Promise<string>): ProxyRule {
  const proxy = proxyAt(new URL(url), password);
  return (target) => (isLoopback(hostOf(target)) ? undefined : proxy);
}

function proxyAt({ protocol, host, username, password }: URL, secret?: () => Promise<string>): Proxy {
  const user = decoded(username);
  return {
    url: new URL(`${protocol}//${host}`),
    authorization: async () => {
      const pass = secret === undefined ? decoded(password) : await secret();
      return user === '' && pass === ''
        ? undefined
        : `Basic ${Buffer.from(`${user}:${pass}`).toString('base64')}`;
    },
  };
}

/** The URL parser leaves a `%` alone that begins no escape. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

type Exemption = (host: string, port: string) => boolean;

function exemptions(noProxy: string): Exemption[] {
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .map(exemption);
}

function exemption(entry: string): Exemption {
  if (entry === '*') return () => true;
  const [, network = '', prefix] = /^([^/]+)\/(\d{1,3})$/.exec(entry) ?? [];
  if (isIP(network) !== 0 && Number(prefix) <= (isIP(network) === 6 ? 128 : 32)) {
    const list = new BlockList();
    list.addSubnet(network, Number(prefix), familyOf(network));
    return (host) => contains(list, host);
  }
  const [, bracketed, name, port] = /^(?:\[(.+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? [];
  const pattern = bracketed ?? name ?? entry;
  const matches = isIP(pattern) === 0 ? domain(pattern) : address(pattern);
  return (host, targetPort) => (port === undefined || port === targetPort) && matches(host);
}

function address(written: string): (host: string) => boolean {
  const list = new BlockList();
  list.addAddress(written, familyOf(written));
  return (host) => contains(list, host);
}

/** `example.com` is it and all below it, `.example.com` and `*.example.com` only what is below it: Go's reading. */
function domain(pattern: string): (host: string) => boolean {
  const name = pattern.replace(/^\*(?=\.)/, '').replace(/\.$/, '');
  return name.startsWith('.')
    ? (host) => host.endsWith(name)
    : (host) => host === name || host.endsWith(`.${name}`);
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** What no proxy could reach, for it would be another machine's: as in Go, and not to be changed by any setting. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || contains(loopback, host);
}

function contains(list: BlockList, host: string): boolean {
  return isIP(host) !== 0 && list.check(host, familyOf(host));
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4';
}

function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$|\.$/g, '');
}

function portOf({ port, protocol }: URL): string {
  return port === '' ? (protocol === 'https:' ? '443' : '80') : port;
}
