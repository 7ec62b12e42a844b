/** Rules about the names of upstreams, which the schema cannot express: they compare keys with each other. */
import { parseImageName } from '../../oci/image-name.ts';
import { DEFAULT_UPSTREAM } from './presets.ts';
import { type Issue, isRaw, upstreamEntries } from './raw.ts';
import { nearest } from './suggest.ts';

/** Names that belong to two upstreams, and names that belong to none. */
export function nameIssues(data: unknown): Issue[] {
  const issues: Issue[] = [];
  const upstreamByName = new Map<string, string>();
  const imageHosts = new Set(isRaw(data) && isRaw(data['upstreams']) ? Object.keys(data['upstreams']) : []);
  const claim = (name: unknown, upstream: string, path: Issue['path'], part: Issue['part']) => {
    if (typeof name !== 'string') return;
    const owner = upstreamByName.get(name) ?? upstream;
    upstreamByName.set(name, owner);
    if (owner === upstream) return;
    const message = `${name} already belongs to upstream ${owner}: a name can select only one upstream`;
    issues.push({ path, part, message });
  };
  for (const [host, entry] of upstreamEntries(data)) {
    claim(host, host, ['upstreams', host], 'key');
    for (const key of ['aliases', 'hosts']) {
      const names: unknown = entry[key];
      if (!Array.isArray(names)) continue;
      for (const [index, name] of names.entries()) {
        claim(name, host, ['upstreams', host, key, index], 'value');
        if (key === 'aliases' && typeof name === 'string') imageHosts.add(name);
      }
    }
  }
  return [...issues, ...defaultUpstreamIssues(data, imageHosts), ...warmIssues(data, imageHosts)];
}

function defaultUpstreamIssues(data: unknown, imageHosts: ReadonlySet<string>): Issue[] {
  if (!isRaw(data) || !isRaw(data['upstreams'])) return [];
  const chosen = data['defaultUpstream'];
  if (typeof chosen === 'string' && !imageHosts.has(chosen)) {
    const rule = `must be an upstream or an alias of one, got ${JSON.stringify(chosen)}`;
    const message = `${rule}${hint(chosen, imageHosts)}`;
    return [{ path: ['defaultUpstream'], part: 'value', message }];
  }
  if (chosen === undefined && !imageHosts.has(DEFAULT_UPSTREAM)) {
    const message = `must contain ${DEFAULT_UPSTREAM}, because it is the default upstream: add it, or set defaultUpstream`;
    return [{ path: ['upstreams'], part: 'key', message }];
  }
  return [];
}

/** Images to warm that no upstream has. */
function warmIssues(data: unknown, imageHosts: ReadonlySet<string>): Issue[] {
  const entries: unknown = isRaw(data) ? data['warm'] : undefined;
  if (!Array.isArray(entries)) return [];
  return entries.flatMap((entry: unknown, at) => {
    const images: unknown = isRaw(entry) ? entry['images'] : undefined;
    if (!Array.isArray(images)) return [];
    return images.flatMap((image: unknown, index): Issue[] => {
      const host = typeof image === 'string' ? parseImageName(image)?.host : undefined;
      if (host === undefined || imageHosts.has(host)) return [];
      const message = `${host} is neither an upstream nor an alias of one${hint(host, imageHosts)}`;
      return [{ path: ['warm', at, 'images', index], part: 'value', message }];
    });
  });
}

function hint(name: string, known: ReadonlySet<string>): string {
  const suggestion = nearest(name, [...known]);
  return suggestion === undefined ? ': add it to upstreams' : `; did you mean ${suggestion}?`;
}
