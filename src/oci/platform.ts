/** Platforms, `os/architecture[/variant]`, and the choice among those of an index. */
import { type Descriptor, DOCKER_LIST, OCI_INDEX } from './manifest.ts';

const PLATFORM = /^[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9.]+)?$/;

export function isPlatform(text: string): boolean {
  return PLATFORM.test(text);
}

/** Whether `platform` is `chosen`, or a variant of it: `linux/arm` matches every variant. */
function matches(platform: string, chosen: string): boolean {
  const [actual, wanted] = [normal(platform), normal(chosen)];
  return actual === wanted || actual.startsWith(`${wanted}/`);
}

/** Removes the variant of arm64: it is always v8, and only some images state it. */
function normal(platform: string): string {
  return platform.replace(/\/arm64\/v8$/, '/arm64');
}

/**
 * Chooses the manifests of an index that are for the `chosen` platforms. With no chosen platform it chooses all; in a
 * manifest that lists no others, nothing is absent. An index inside the index is always chosen, and with one nothing is
 * absent: it may have manifests for any platform.
 *
 * @returns `absent`: the chosen platforms that the index has no manifest for
 */
export function choosePlatforms(
  listed: readonly Descriptor[],
  chosen: readonly string[],
): { chosen: readonly Descriptor[]; absent: string[] } {
  if (chosen.length === 0 || listed.length === 0) return { chosen: listed, absent: [] };
  const nested = listed.filter(({ mediaType }) => mediaType === OCI_INDEX || mediaType === DOCKER_LIST);
  const fits = ({ platform }: Descriptor, wanted: string) =>
    platform !== undefined && matches(platform, wanted);
  return {
    chosen: listed.filter((one) => nested.includes(one) || chosen.some((wanted) => fits(one, wanted))),
    absent: nested.length > 0 ? [] : chosen.filter((wanted) => !listed.some((one) => fits(one, wanted))),
  };
}
