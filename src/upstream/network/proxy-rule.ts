/** Decides which proxy a request uses: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, read as curl and Go do. Pure. */
import { BlockList, isIP } from 'node:net';

export interface Proxy {
  /** `http:` or `https:`. Without credentials, so that messages can show it. */
  url: URL;
  /** The value of `Proxy-Authorization`, read again for each connection or request. Undefined: send none. */
  authorization: () => Promise<string | undefined>;
}

/** Returns the proxy for a request to `target`, the same object for the same proxy. Undefined: connect directly. */
export type ProxyRule = (target: URL) => Proxy | undefined;

/** The rule that the environment sets. @throws {Error} it names a proxy that cannot be used */
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
    // Do not show the value: it may contain a password.
    if (url === null || !['http:', 'https:'].includes(url.protocol) || url.hostname === '')
      throw new Error(`${name} is not an http:// or https:// URL`);
    byProtocol.set(protocol, proxyAt(url));
  }
  const exempt = exemptions(read('NO_PROXY'));
  return (target) =>
    isLoopback(hostOf(target)) || exempt.some((matches) => matches(hostOf(target), portOf(target)))
      ? undefined
      : byProtocol.get(target.protocol);
}

/**
 * The rule that uses one proxy for all targets and ignores the environment.
 *
 * @param url may contain a user name
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

/** Decodes percent-encoding. Keeps text with a `%` that starts no escape, as the URL parser does. */
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

/** `example.com` matches it and its subdomains, `.example.com` and `*.example.com` only the subdomains: as in Go. */
function domain(pattern: string): (host: string) => boolean {
  const name = pattern.replace(/^\*(?=\.)/, '').replace(/\.$/, '');
  return name.startsWith('.')
    ? (host) => host.endsWith(name)
    : (host) => host === name || host.endsWith(`.${name}`);
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Loopback never uses a proxy, whose loopback is another machine. As in Go, no setting changes this. */
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
