/** Answers requests for lists: the tags of a repository, and the referrers of a manifest. */
import type { DiscoveryMirror } from '../../mirror/manifests/discovery-mirror.ts';
import type { MirroredUpstream } from '../../mirror/mirrored-upstream.ts';
import { RegistryError } from '../../oci/errors.ts';
import { OCI_INDEX } from '../../oci/manifest.ts';
import { type ListReply, listHeaders, setHeaders } from './headers.ts';
import type { PullReply } from './pull-state.ts';
import type { ReferrersRequest, TagsRequest } from './routes.ts';

export interface ListContext {
  discovery: Pick<DiscoveryMirror, 'tags' | 'referrers'>;
}

export async function answerTags(
  ctx: PullReply,
  { repository, query }: Readonly<TagsRequest>,
  { client }: MirroredUpstream,
  { discovery }: ListContext,
): Promise<void> {
  const { state } = ctx;
  const mediaType = 'application/json';
  const n = new URLSearchParams(query).get('n');
  if (n !== null && Number(n) === 0) {
    // Distribution-spec: an empty list, and no Link. Upstreams differ here, so we do not ask them.
    state.outcome = 'bypass';
    sendList(ctx, { mediaType, body: Buffer.from(JSON.stringify({ name: repository, tags: [] })) });
    return;
  }
  const { body, next } = await discovery.tags({
    context: state.context,
    upstream: client,
    repository,
    query,
  });
  state.outcome = 'bypass';
  sendList(ctx, { mediaType, body, next });
}

export async function answerReferrers(
  ctx: PullReply,
  { repository, digest, query }: Readonly<ReferrersRequest>,
  { client, freshnessFor }: MirroredUpstream,
  { discovery }: ListContext,
): Promise<void> {
  const { state } = ctx;
  const { referrers, outcome, warning } = await discovery.referrers({
    context: state.context,
    upstream: client,
    freshness: freshnessFor(repository),
    repository,
    digest,
    query,
  });
  state.outcome = outcome;
  if (referrers === undefined) {
    throw new RegistryError('UNSUPPORTED', {
      status: 404,
      message: `${client.name} has no referrers API: use the tag ${digest.replace(':', '-')}`,
    });
  }
  sendList(ctx, { ...referrers, mediaType: OCI_INDEX, warning });
}

function sendList(ctx: PullReply, list: ListReply): void {
  setHeaders(ctx, listHeaders(ctx, list));
  ctx.status = 200;
  if (ctx.method === 'HEAD') return;
  ctx.state.bytes = list.body.length;
  ctx.body = list.body;
}
