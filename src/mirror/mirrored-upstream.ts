/** An upstream, and how it is mirrored. */

import type { Repository } from '../oci/reference.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { FreshnessPolicy } from './freshness.ts';

export interface MirroredUpstream {
  client: Upstream;
  /** Ranges of a large cold blob that are fetched at one time. */
  segments: number;
  freshnessFor: (repository: Repository) => FreshnessPolicy;
}
