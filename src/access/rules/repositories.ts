/**
 * Patterns of repositories, `registry/repository`, in rules. They have no tag: clients ask for a layer by its digest
 * and do not name a tag, so a rule about tags could not be enforced.
 */
import { parseRepository } from '../../oci/reference.ts';
import { compileGlob, type Glob } from './glob.ts';

/** Upstreams by their name and by each alias. */
export type UpstreamByHost = ReadonlyMap<string, string>;

const DOCKER_HUB = 'docker.io';

/** Matches `upstream/repository`. An alias in the pattern means its upstream. */
export function compileRepositoryPattern(pattern: string, upstreams: UpstreamByHost): Glob {
  const { host, rest } = split(pattern);
  return compileGlob(host === undefined ? pattern : `${upstreams.get(host) ?? host}/${rest}`);
}

/** Why a pattern can never match, and what to do; undefined when it can. */
export function patternProblem(pattern: string, upstreams: UpstreamByHost): string | undefined {
  const { host, rest } = split(pattern);
  const shown = JSON.stringify(pattern);
  if (host === undefined && !pattern.includes('*')) {
    return `${shown} has no repository: write a registry and a repository, such as docker.io/library/*`;
  }
  if (/[:@]/.test(rest)) {
    return `${shown} has a tag or digest: rules are about repositories, so write it without`;
  }
  if (host === undefined) {
    const [start = ''] = pattern.split('*');
    if ([...upstreams.values()].some((upstream) => `${upstream}/`.startsWith(start))) return undefined;
    return `no registry of upstreams begins with ${JSON.stringify(start)}: add it there, or correct the pattern`;
  }
  const upstream = upstreams.get(host);
  if (upstream === undefined) {
    return `the registry ${JSON.stringify(host)} is not configured: add it under upstreams, or correct the pattern`;
  }
  if (upstream === DOCKER_HUB && /^[^/*]+$/.test(rest)) {
    return `${shown} matches nothing: on Docker Hub it is ${host}/library/${rest}`;
  }
  // Tries one letter for `*`, which can be any text: if that is not a valid repository, no other text is.
  if (parseRepository(rest.replaceAll('*', 'a')) === undefined) {
    return `${shown} matches no repository: names are lower-case letters and digits with . _ - between them`;
  }
  return undefined;
}

/** The registry, unless it has a `*`, which may match a part of the repository as well. */
function split(pattern: string): { host: string | undefined; rest: string } {
  const slash = pattern.indexOf('/');
  const host = pattern.slice(0, Math.max(slash, 0));
  return { host: slash < 0 || host.includes('*') ? undefined : host, rest: pattern.slice(slash + 1) };
}
