/** The operations side: metrics, health and the API. */
import Router from '@koa/router';
import Koa from 'koa';
import type { Metrics } from '../../telemetry/metrics.ts';
import { type ApiContext, apiRoutes } from './api.ts';
import { answerErrors } from './errors.ts';
import { type Admit, findPermit, type OperationsState } from './permit.ts';
import { type PinsApiContext, pinRoutes } from './pins-api.ts';
import { type PolicyApiContext, policyRoutes } from './policy-api.ts';
import { answerScrapes, type ScrapeFacts } from './scrape.ts';
import { type TransferContext, transferRoutes } from './transfer-api.ts';
import { refuseUnknownHosts, refuseWebPages } from './web-pages.ts';

export interface OperationsContext extends ApiContext {
  metrics: Metrics;
  transfer: TransferContext;
  policy: PolicyApiContext;
  pins: PinsApiContext;
  scrapeFacts: () => Promise<ScrapeFacts>;
  /** @returns why no traffic should come here now; undefined if it may */
  notReadyReason: () => Promise<string | undefined>;
  /** Finds out what the sender of a request may do. */
  admit: Admit;
  /** Names of this listener in `Host`. Undefined: every name will do, because no browser reaches it. */
  hosts: readonly string[] | undefined;
}

export function createOperationsApp({
  metrics,
  transfer,
  policy,
  pins,
  scrapeFacts,
  notReadyReason,
  admit,
  hosts,
  ...api
}: OperationsContext): Koa<OperationsState> {
  const health = new Router<OperationsState>();
  health.get('/healthz', (ctx) => {
    ctx.body = 'ok\n';
  });
  health.get('/readyz', async (ctx) => {
    const reason = await notReadyReason();
    ctx.status = reason === undefined ? 200 : 503;
    ctx.body = `${reason ?? 'ok'}\n`;
  });
  const router = new Router<OperationsState>();
  router.get('/metrics', answerScrapes(metrics, scrapeFacts));
  const app = new Koa<OperationsState>();
  app.on('error', (error: unknown) => api.logger.error({ err: error }, 'operations request failed'));
  app.use(answerErrors(api.logger));
  app.use(refuseWebPages());
  // Health comes before names and rights: whoever watches the process knows only its address.
  app.use(health.routes());
  if (hosts !== undefined) app.use(refuseUnknownHosts(hosts));
  app.use(findPermit(admit));
  app.use(router.routes());
  app.use(apiRoutes(api).routes());
  app.use(transferRoutes(transfer).routes());
  app.use(policyRoutes(policy).routes());
  app.use(pinRoutes(pins).routes());
  app.use(router.allowedMethods());
  return app;
}
