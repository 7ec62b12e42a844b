/** Hosts, ports, URLs and networks. */
import { isIPv4, isIPv6 } from 'node:net';
import * as z from 'zod';
import { written, wrongSecret } from './codec.ts';

/** An address to listen on, in the form that `server.listen` of node:net takes. */
export interface ListenAddress {
  /** A host name or an IP address; IPv6 without brackets. */
  host: string;
  /** 0 lets the system choose a free port. */
  port: number;
}

export function listenAddress() {
  const what = 'a host and a port, such as 127.0.0.1:5000 or "[::1]:5000"';
  return written(what, parseListen, formatListen, z.custom<ListenAddress>());
}

/** A {@link ListenAddress}, or the path of a Unix socket. */
export function socketOrAddress() {
  const what = 'a host and a port, such as 127.0.0.1:5001, or unix: and the path of a socket';
  const parse = (text: string): ListenAddress | { socket: string } | undefined => {
    const [, socket] = /^unix:([^\0~][^\0]*)$/.exec(text) ?? [];
    return socket === undefined ? parseListen(text) : { socket };
  };
  const format = (address: ListenAddress | { socket: string }) =>
    'socket' in address ? `unix:${address.socket}` : formatListen(address);
  const nearest = (text: string) =>
    text.startsWith('unix:~') ? 'unix: and the whole path, without ~' : undefined;
  return written(what, parse, format, z.custom<ListenAddress | { socket: string }>(), nearest);
}

function parseListen(text: string): ListenAddress | undefined {
  const [, address, name, digits] = /^(?:\[(.+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = address !== undefined && isIPv6(address) ? address : name;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

export function formatListen({ host, port }: ListenAddress): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The base URL of a registry. The value has no slash at its end. */
export function registryUrl() {
  return baseUrl('https://registry.corp.example');
}

/** The URL by which clients reach this mirror. The value has no slash at its end. */
export function externalUrl() {
  return baseUrl('https://mirror.corp.example');
}

function baseUrl(example: string) {
  const what = `an http:// or https:// URL without user name, password, query or fragment, such as ${example}`;
  return httpUrl(what, ({ username, password, origin, pathname }) =>
    username === '' && password === '' ? `${origin}${pathname.replace(/\/+$/, '')}` : undefined,
  );
}

/** The URL of a Valkey or Redis. No error shows the text: it may contain a password. */
export function coordinatorUrl() {
  const what =
    'a URL such as valkey://valkey.corp.example:6379, without user name and password, for which there are keys of their own';
  const error = wrongSecret(what);
  return z.string({ error }).regex(/^(?:valkeys?|rediss?):\/\/[^@\s]+$/, { error });
}

/** The URL of a proxy. It may contain a user name, and no password. */
export function proxyUrl() {
  const what =
    'an http:// or https:// URL of a host and port, such as http://proxy.corp.example:3128; for a password write { url, password }';
  return httpUrl(what, ({ password, pathname, href }) =>
    password === '' && pathname === '/' ? href.replace(/\/$/, '') : undefined,
  );
}

/** @param read returns the value, or `undefined` for a URL that is not accepted */
function httpUrl(what: string, read: (url: URL) => string | undefined) {
  return z.codec(z.string({ error: wrongSecret(what) }), z.string(), {
    decode: (text, context) => {
      const url = URL.parse(text);
      const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
      const value = url === null || !isHttp || /[?#]/.test(text) ? undefined : read(url);
      if (value !== undefined) return value;
      // Does not show the text: it may be refused because it contains a password.
      context.issues.push({ code: 'custom', input: text, message: wrongSecret(what)({ input: text }) });
      return z.NEVER;
    },
    encode: (url) => url,
  });
}

/** A host name or IP address with an optional port, in the form of a Host header or a URL. */
export function host() {
  const what = 'a host in lower case with an optional port, such as registry.corp.example:5000';
  return written(what, (text) => (isHost(text) ? text : undefined), String, z.string());
}

/**
 * The host of an image reference. It must have a dot or a port, or be `localhost`: every client tells a host from a path
 * component by that. Without the rule, an upstream called `library` would take over repositories of Docker Hub.
 */
export function referenceHost() {
  const what =
    'a registry host in lower case with a dot or a port, such as registry.corp.example or registry:5000';
  const parse = (text: string) =>
    isHost(text) && (/[.:]/.test(text) || text === 'localhost') ? text : undefined;
  return written(what, parse, String, z.string());
}

function isHost(text: string): boolean {
  const [, address, name, digits] = /^(?:\[(.+)\]|([a-z0-9.-]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (digits !== undefined && (Number(digits) > 65_535 || Number(digits) === 0)) return false;
  if (address !== undefined) return isIPv6(address) && address === address.toLowerCase();
  return (
    name !== undefined && name.split('.').every((label) => /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/.test(label))
  );
}

/** An IP address, or a network in CIDR notation. */
export function network() {
  const what = 'an IP address or a network, such as 10.0.0.0/8 or "fd00::/8"';
  const parse = (text: string) => {
    const [address = '', bits, ...rest] = text.split('/');
    const most = isIPv6(address) ? 128 : isIPv4(address) ? 32 : -1;
    const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= most);
    return most > 0 && fits && rest.length === 0 ? text : undefined;
  };
  return written(what, parse, String, z.string());
}

/** The path of a URL under which others lie; `none` is `null`. */
export function pathPrefix() {
  const what = 'none, or a path that begins and ends with a slash, such as /blobs/';
  const parse = (text: string) =>
    text === 'none' ? null : /^\/(?:[\w.~-]+\/)+$/.test(text) ? text : undefined;
  return written(what, parse, (prefix) => prefix ?? 'none', z.string().nullable());
}
