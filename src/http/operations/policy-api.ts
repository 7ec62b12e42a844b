/** The part of the operations API about policies: why an image comes in or not, and to let one in by hand. */
import Router from '@koa/router';
import * as z from 'zod';
import { parseImageName } from '../../oci/image-name.ts';
import type { Admission } from '../../policy/decision/admissions.ts';
import { type PolicyOffice, UnknownPolicyError } from '../../policy/door/policy-office.ts';
import type { RequestedImage, UpstreamOf } from '../../transfer/requested-image.ts';
import { ApiError } from './errors.ts';
import { checked, readJson } from './json-body.ts';
import type { OperationsState } from './permit.ts';

export interface PolicyApiContext {
  /** Undefined: there are no policies. */
  office: () => PolicyOffice | undefined;
  upstreamOf: UpstreamOf;
  /** A client that sends no byte for this long is cut. */
  clientTimeoutMs: number;
}

const ADMIT = z.strictObject({
  image: z.string(),
  policies: z.array(z.string()).min(1, 'name at least one policy'),
  reason: z.string().min(1, 'say why'),
  until: z.iso
    .datetime({ error: 'must be a moment such as 2027-12-31T00:00:00Z' })
    .transform((text) => Date.parse(text)),
});

export function policyRoutes({
  office,
  upstreamOf,
  clientTimeoutMs,
}: PolicyApiContext): Router<OperationsState> {
  const router = new Router<OperationsState>({ prefix: '/api' });

  router.get('/explain', async (ctx) => {
    const { permit } = ctx.state;
    permit.expectSome('observe');
    const text = new URLSearchParams(ctx.querystring).get('image') ?? '';
    const { key, reference } = imageOf(text, upstreamOf);
    permit.require(['observe', 'pull'], [key]);
    const found = await office()?.explain(key, reference);
    if (found === undefined && office() !== undefined)
      throw new ApiError(404, `${text} is not in the cache: pull it, or fetch it with millpond warm`);
    ctx.body = {
      image: text,
      ...(found === undefined ? {} : { digest: found.digest }),
      policies: (found?.answers ?? []).map(({ policy, mode, finding }) => ({
        ...{ policy, mode, allowed: finding.allowed },
        ...(finding.until === undefined ? {} : { until: new Date(finding.until).toISOString() }),
        ...(finding.allowed
          ? {}
          : { reason: finding.reason, advice: finding.advice, detail: finding.detail }),
      })),
    };
  });

  router.get('/policy/admissions', (ctx) => {
    const { permit } = ctx.state;
    permit.expectSome('observe');
    const maySee = permit.only(['observe']);
    ctx.body = { admissions: (office()?.admissions() ?? []).filter(maySee).map(shown) };
  });

  router.post('/policy/admit', async (ctx) => {
    const { permit, caller } = ctx.state;
    permit.expectSome('operate');
    const { image, policies, reason, until } = checked(ADMIT, await readJson(ctx.req, clientTimeoutMs));
    const { key, reference } = imageOf(image, upstreamOf);
    permit.require(['operate'], [key]);
    const current = office();
    if (current === undefined) throw new ApiError(409, 'there are no policies: everything comes in');
    if (!reference.startsWith('sha256:') && !reference.startsWith('sha512:'))
      throw new ApiError(400, `${image} is a tag, which may move: name the image by its digest`);
    const { kind, name } = caller.identity;
    const by = name === undefined ? kind : `${kind}:${name}`;
    const admission = { ...key, digest: reference as Admission['digest'], policies, reason, until, by };
    try {
      await current.admit(admission);
    } catch (error) {
      if (error instanceof UnknownPolicyError) throw new ApiError(400, error.message);
      throw error;
    }
    ctx.body = shown({ ...admission, at: 0 });
  });
  return router;
}

function shown({ upstream, repository, digest, policies, reason, until, by }: Admission) {
  const image = `${upstream}/${repository}@${digest}`;
  return { image, policies, reason, until: new Date(until).toISOString(), by };
}

/** @throws {ApiError} */
function imageOf(text: string, upstreamOf: UpstreamOf): Pick<RequestedImage, 'key' | 'reference'> {
  const name = parseImageName(text);
  if (name === undefined)
    throw new ApiError(400, `${text} is not an image name: write it like docker.io/library/alpine:3.20`);
  const upstream = upstreamOf(name.host);
  if (upstream === undefined) throw new ApiError(404, `${name.host} is not one of the configured upstreams`);
  const reference = name.digest ?? name.tag;
  if (reference === undefined) throw new ApiError(400, `${text} has no tag and no digest: add one`);
  return { key: { upstream, repository: name.repository }, reference };
}
