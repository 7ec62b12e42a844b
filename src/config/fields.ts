/**
 * The kinds of value that a configuration field can hold. Each is a codec: what reads it also writes it back,
 * which is how `config print` gives a file that loads as the same configuration.
 */
import { isIPv4, isIPv6 } from 'node:net';
import * as z from 'zod';
import { parseImageName } from '../oci/image-name.ts';
import { isPlatform } from '../oci/platform.ts';
import { formatDuration, formatSize, parseDuration, parseSize } from './fields/units.ts';

/** An address to listen on, in the shape that `server.listen` of node:net takes. */
export interface ListenAddress {
  /** A name or an address; IPv6 without brackets. */
  host: string;
  /** 0 lets the system choose. */
  port: number;
}

/** Where a secret is kept: an environment variable or a file. */
export type SecretRef = { env: string } | { file: string };

// setTimeout takes a longer delay for 1 ms, so that a timeout of 30 days would fire at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A time span in milliseconds, `0s` included. */
export function duration() {
  const what = 'a duration such as 500ms, 30s, 5m, 24h or 7d';
  return written(what, parseDuration, formatDuration, z.number());
}

/** A time span in milliseconds that a timer can wait for: from 1 ms to 24 days. */
export function timeout() {
  const parse = (text: string) => {
    const ms = parseDuration(text);
    return ms !== undefined && ms > 0 && ms <= LONGEST_TIMER_MS ? ms : undefined;
  };
  return written('a duration from 1ms to 24d, such as 30s', parse, formatDuration, z.number());
}

/** A time span in milliseconds that a timer can wait for, or none. */
export function interval() {
  const parse = (text: string) => {
    if (text === 'none') return null;
    const ms = parseDuration(text);
    return ms !== undefined && ms > 0 && ms <= LONGEST_TIMER_MS ? ms : undefined;
  };
  const format = (ms: number | null) => (ms === null ? 'none' : formatDuration(ms));
  return written('none or a duration from 1ms to 24d, such as 7d', parse, format, z.number().nullable());
}

/** A number of bytes. */
export function sizeOrNone() {
  return written('a size such as 1GiB, or 0B', parseSize, formatSize, z.number());
}

/** A number of bytes above zero, or a share of the file system above 0 and up to 1. */
export function sizeOrShare() {
  const what = 'a size such as 512MiB or 50GiB, or a share of the file system such as 80%';
  const parse = (text: string): number | { share: number } | undefined => {
    const percent = Number(/^(\d{1,3})%$/.exec(text)?.[1] ?? 0);
    if (percent > 0 && percent <= 100) return { share: percent / 100 };
    return parseSize(text) || undefined;
  };
  const format = (value: number | { share: number }) =>
    typeof value === 'number' ? formatSize(value) : `${Math.round(value.share * 100)}%`;
  return written(what, parse, format, z.custom<number | { share: number }>());
}

/** A pattern of image names, as `upstream/repository:tag`; `*` stands for anything. */
export function imagePattern() {
  const what = 'a pattern of image names with their host, such as docker.io/library/alpine:*';
  const parse = (text: string) => (/^[a-z0-9.*:-]+\/[^\s]*$/.test(text) ? text : undefined);
  return written(what, parse, String, z.string());
}

/** An image by its name: `docker.io/library/alpine:3.20`. */
export function imageName() {
  const parse = (text: string) => (parseImageName(text) === undefined ? undefined : text);
  return written('an image name such as docker.io/library/alpine:3.20', parse, String, z.string());
}

export function platform() {
  const parse = (text: string) => (isPlatform(text) ? text : undefined);
  return written('a platform such as linux/amd64', parse, String, z.string());
}

export function listenAddress() {
  const what = 'a host and a port such as 127.0.0.1:5000 or "[::1]:5000"';
  return written(what, parseListen, formatListen, z.custom<ListenAddress>());
}

function parseListen(text: string): ListenAddress | undefined {
  const [, address, name, digits] = /^(?:\[(.+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = address !== undefined && isIPv6(address) ? address : name;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

function formatListen({ host, port }: ListenAddress): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The base address of a registry, without a slash at its end. */
export function registryUrl() {
  const what = 'an http:// or https:// URL without credentials, query or fragment';
  return httpUrl(what, ({ username, password, origin, pathname }) =>
    username === '' && password === '' ? `${origin}${pathname.replace(/\/+$/, '')}` : undefined,
  );
}

/** The address of a proxy; it may hold a user name. */
export function proxyUrl() {
  const what = 'an http:// or https:// URL of a host and port, without a password';
  return httpUrl(what, ({ password, pathname, href }) =>
    password === '' && pathname === '/' ? href.replace(/\/$/, '') : undefined,
  );
}

/** @param read gives what is held, or undefined for a URL that will not do */
function httpUrl(what: string, read: (url: URL) => string | undefined) {
  return z.codec(z.string({ error: `must be ${what}` }), z.string(), {
    decode: (text, context) => {
      const url = URL.parse(text);
      const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
      const held = url === null || !isHttp || /[?#]/.test(text) ? undefined : read(url);
      if (held !== undefined) return held;
      // Not shown: what is wrong with it may be that a password is in it.
      context.issues.push({ code: 'custom', input: text, message: `must be ${what}` });
      return z.NEVER;
    },
    encode: (url) => url,
  });
}

/** A host name or address with an optional port, as a Host header or a URL holds it. */
export function host() {
  const what = 'a host in lower case with an optional port, such as registry.corp.example:5000';
  return written(what, (text) => (isHost(text) ? text : undefined), String, z.string());
}

/**
 * The host of an image reference. Like every client, we tell it from a path component by its dot or port
 * (or by being `localhost`); else an upstream called `library` would swallow the repositories of Docker Hub.
 */
export function referenceHost() {
  const what = 'the host of an image reference in lower case, such as registry.corp.example or registry:5000';
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

export function pattern() {
  return z.codec(z.string({ error: wrongType('a regular expression') }), z.custom<RegExp>(), {
    decode: (source, context) => {
      try {
        return new RegExp(source);
      } catch (error) {
        const message = error instanceof Error ? error.message.replace(/^.*: /, '').toLowerCase() : '';
        context.issues.push({
          code: 'custom',
          input: source,
          message: `must be a regular expression, got ${shown(source)}: ${message}`,
        });
        return z.NEVER;
      }
    },
    encode: (regExp) => regExp.source,
  });
}

/** The path of a file or folder. A line break in it means that someone pasted the content instead. */
export function path() {
  const notContent = { error: 'must be a path, not the content of a file' };
  return z
    .string({ error: 'must be a path' })
    .min(1, { error: 'must be a path' })
    .regex(/^[^\0\r\n]*$/, notContent);
}

/** The path of a URL that others lie below, or none. */
export function pathPrefix() {
  const what = 'none or a path that begins and ends with a slash, such as /blobs/';
  const parse = (text: string) =>
    text === 'none' ? null : /^\/(?:[\w.~-]+\/)+$/.test(text) ? text : undefined;
  return written(what, parse, (prefix) => prefix ?? 'none', z.string().nullable());
}

export function secretRef() {
  const hint = 'must be { env: NAME } or { file: PATH }: a secret is never written into the configuration';
  const keys = z.strictObject(
    {
      env: z
        .string({ error: 'must be the name of an environment variable' })
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'must be the name of an environment variable' })
        .optional()
        .describe('Environment variable that holds the secret; read at start.'),
      file: path().optional().describe('File that holds the secret; read again when it changes.'),
    },
    { error: hint },
  );
  return z.codec(keys, z.custom<SecretRef>(), {
    decode: ({ env, file }, context): SecretRef => {
      if (env !== undefined && file === undefined) return { env };
      if (file !== undefined && env === undefined) return { file };
      context.issues.push({ code: 'custom', input: {}, message: hint });
      return z.NEVER;
    },
    encode: (ref) => ref,
  });
}

/** A pattern of repositories; `*` stands for anything. */
export function repositoryPattern() {
  const what = 'a pattern of repositories such as org/*';
  return written(what, (text) => (/^[a-z0-9._/*-]+$/.test(text) ? text : undefined), String, z.string());
}

/** An address, or a network in CIDR notation. */
export function network() {
  const what = 'an address or a network such as 10.0.0.0/8 or "fd00::/8"';
  const parse = (text: string) => {
    const [address = '', bits, ...rest] = text.split('/');
    const most = isIPv6(address) ? 128 : isIPv4(address) ? 32 : -1;
    const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= most);
    return most > 0 && fits && rest.length === 0 ? text : undefined;
  };
  return written(what, parse, String, z.string());
}

/** What stands behind `docker-credential-` in the name of a program. */
export function helperName() {
  const what = 'the name of a credential helper without docker-credential-, such as ecr-login';
  return z.string({ error: wrongType(what) }).regex(/^[A-Za-z0-9_.-]+$/, { error: wrongType(what) });
}

export function awsRegion() {
  const what = 'an AWS region such as eu-west-1';
  return z.string({ error: wrongType(what) }).regex(/^[a-z0-9-]+$/, { error: wrongType(what) });
}

export function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, { error: wrongType(`one of ${values.join(', ')}`) });
}

export function flag() {
  return z.boolean({ error: wrongType('true or false') });
}

/** A whole number from 0. */
export function amount() {
  const error = wrongType('a whole number from 0');
  return z.int({ error }).min(0, { error });
}

/** A whole number from 1. */
export function count() {
  const error = wrongType('a whole number from 1');
  return z.int({ error }).min(1, { error });
}

/** A number above 0 and up to 1. */
export function share() {
  const error = wrongType('a number above 0 and up to 1');
  return z.number({ error }).gt(0, { error }).lte(1, { error });
}

/** A map of the given fields and no others. */
export function section<T extends z.core.$ZodShape>(fields: T) {
  return z.strictObject(fields, { error: wrongType('a map of settings') });
}

export function list<T extends z.ZodType>(item: T) {
  return z.array(item, { error: wrongType('a list') });
}

/** The error text of a field that does not hold `what`. Not for secrets: it shows what the field holds. */
export function wrongType(what: string) {
  return (issue: { input?: unknown }) => `must be ${what}, got ${shown(issue.input)}`;
}

/** A field that is written as text and held as something else. */
function written<T>(
  what: string,
  parse: (text: string) => T | undefined,
  format: (value: T) => string,
  held: z.ZodType<T, T>,
) {
  return z.codec(z.string({ error: wrongType(what) }), held, {
    decode: (text, context) => {
      const value = parse(text);
      if (value !== undefined) return value;
      context.issues.push({ code: 'custom', input: text, message: wrongType(what)({ input: text }) });
      return z.NEVER;
    },
    encode: format,
  });
}

function shown(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return Array.isArray(value) ? 'a list' : 'a map';
}
