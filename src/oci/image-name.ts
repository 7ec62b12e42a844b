/** Image names as people type them: `[host/]repository[:tag][@digest]`, with the defaults of Docker. */
import { type Digest, parseDigest } from './digest.ts';
import { parseRepository, parseTag, type Repository, type Tag } from './reference.ts';

/** An image name with its host, and with `library/` where Docker adds it. Tag and digest are there if they were written. */
export interface ImageName {
  /** The registry in lower case, with its port if it has one: `docker.io`, `registry.corp.example:5000`. */
  host: string;
  repository: Repository;
  tag?: Tag;
  digest?: Digest;
}

const DOCKER_HUB = 'docker.io';
/** The former name of Docker Hub. Docker still reads it as `docker.io`. */
const OLD_DOCKER_HUB = 'index.docker.io';

// Limits the length to that of a DNS name (253 characters) and a port. Allows an IPv6 address in brackets, as in URLs.
const HOST_MAX_LENGTH = 253 + ':65535'.length;
const LABEL = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?';
const HOST = new RegExp(`^(?:\\[[0-9a-f:]+\\]|${LABEL}(?:\\.${LABEL})*)(?::[0-9]{1,5})?$`);

/**
 * Reads an image name; `undefined` if `text` is not one. The part before the first slash is a host if it has a dot or a
 * port, or is `localhost`. Otherwise the host is `docker.io`, and a repository of one part gets `library/` in front.
 * This is the rule of Docker's reference grammar (distribution/reference, `splitDockerDomain`).
 */
export function parseImageName(text: string): ImageName | undefined {
  const [name = '', digestText, ...rest] = text.split('@');
  const digest = digestText === undefined ? undefined : parseDigest(digestText);
  if (rest.length > 0 || (digestText !== undefined && digest === undefined)) return undefined;

  const colon = name.indexOf(':', name.lastIndexOf('/') + 1);
  const tag = colon < 0 ? undefined : parseTag(name.slice(colon + 1));
  if (colon >= 0 && tag === undefined) return undefined;

  const { host, path } = splitHost(colon < 0 ? name : name.slice(0, colon));
  const repository = parseRepository(host === DOCKER_HUB && !path.includes('/') ? `library/${path}` : path);
  if (repository === undefined || host.length > HOST_MAX_LENGTH || !HOST.test(host)) return undefined;
  return {
    host,
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** The full name: `docker.io/library/alpine:3.20`. {@link parseImageName} reads it back. */
export function formatImageName({ host, repository, tag, digest }: ImageName): string {
  return [
    `${host}/${repository}`,
    tag === undefined ? '' : `:${tag}`,
    digest === undefined ? '' : `@${digest}`,
  ].join('');
}

function splitHost(name: string): { host: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0)).toLowerCase();
  if (!/[.:]/.test(first) && first !== 'localhost') return { host: DOCKER_HUB, path: name };
  return { host: first === OLD_DOCKER_HUB ? DOCKER_HUB : first, path: name.slice(slash + 1) };
}
