/** The part of the operations API about policies: why an image comes in or not, and to let one in by hand. */
import Router from '@koa/router';
import * as z from 'zod';
import type { Admission } from '../../policy/decision/admissions.ts';
import { AdmissionError, type PolicyOffice } from '../../policy/door/policy-office.ts';
import { ImageError } from '../../transfer/errors.ts';
import { type RequestedImage, requestedImage, type UpstreamOf } from '../../transfer/requested-image.ts';
import { ApiError, imageApiError } from './errors.ts';
import { checked, readJson } from './json-body.ts';
import type { OperationsState } from './permit.ts';

export interface PolicyApiContext {
  /** Undefined: there are no policies. */
  office: () => PolicyOffice | undefined;
  upstreamOf: UpstreamOf;
  /** A client that sends no byte for this long is cut. */
  clientTimeoutMs: number;
}

/** Each is kept for good, and logged. */
const MAX_REASON = 500;
const MAX_POLICIES = 100;

const ADMIT = z.strictObject({
  image: z.string(),
  policies: z.array(z.string()).min(1, 'name at least one policy').max(MAX_POLICIES),
  reason: z.string().min(1, 'say why').max(MAX_REASON, `say why in ${MAX_REASON} characters`),
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
    const maySee = permit.only(['observe', 'pull']);
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
      if (error instanceof AdmissionError) throw new ApiError(400, error.message);
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
function imageOf(text: string, upstreamOf: UpstreamOf): RequestedImage {
  try {
    return requestedImage(text, upstreamOf);
  } catch (error) {
    if (error instanceof ImageError) throw imageApiError(error);
    throw error;
  }
}
