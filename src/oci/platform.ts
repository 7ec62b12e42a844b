/** Platforms as people choose them: `os/architecture[/variant]`. */
import { type Descriptor, DOCKER_LIST, OCI_INDEX } from './manifest.ts';

const PLATFORM = /^[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9.]+)?$/;

export function isPlatform(text: string): boolean {
  return PLATFORM.test(text);
}

/** Whether an image for `platform` will do for who chose `chosen`: `linux/arm` takes every variant of it. */
function matches(platform: string, chosen: string): boolean {
  const [has, wants] = [normal(platform), normal(chosen)];
  return has === wants || has.startsWith(`${wants}/`);
}

/** Everybody's arm64 is v8, and some say so. */
function normal(platform: string): string {
  return platform.replace(/\/arm64\/v8$/, '/arm64');
}

/**
 * Which of the manifests that an index lists are for the `chosen` platforms; all if none are, or it lists nothing. An
 * index in the index is for all.
 *
 * @returns `absent`: those of the platforms that nothing is for
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
