/** Refusals of what nobody can judge. */
import type { Refusal } from '../parts/part.ts';

export const NO_LISTING: Refusal = {
  allowed: false,
  reason: 'no manifest that is let in lists it here',
  advice: 'pull the manifest of its image first, from the same repository',
  detail: { denied: 'unlisted' },
};

export const NOT_HERE: Refusal = {
  allowed: false,
  reason: 'this manifest is not cached, so what it lists cannot be checked',
  advice: 'pull it as a manifest first, from the same repository',
  detail: { denied: 'unknown' },
};
