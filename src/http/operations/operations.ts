/** The operations side: metrics, health and the API. It has no authentication: keep it off the public network. */
import Router from '@koa/router';
import Koa from 'koa';
import type { Metrics } from '../../telemetry/metrics.ts';
import { type ApiContext, apiRoutes } from './api.ts';
import { type TransferContext, transferRoutes } from './transfer-api.ts';

export interface OperationsContext extends ApiContext {
  metrics: Metrics;
  transfer: TransferContext;
  /** @returns why no traffic should come here now; undefined if it may */
  notReadyReason: () => Promise<string | undefined>;
}

export function createOperationsApp({ metrics, transfer, notReadyReason, ...api }: OperationsContext): Koa {
  const router = new Router();
  router.get('/healthz', (ctx) => {
    ctx.body = 'ok\n';
  });
  router.get('/readyz', async (ctx) => {
    const reason = await notReadyReason();
    ctx.status = reason === undefined ? 200 : 503;
    ctx.body = `${reason ?? 'ok'}\n`;
  });
  router.get('/metrics', async (ctx) => {
    ctx.set('Content-Type', metrics.registry.contentType);
    ctx.body = await metrics.registry.metrics();
  });
  const app = new Koa();
  app.on('error', (error: unknown) => api.logger.error({ err: error }, 'operations request failed'));
  app.use(router.routes());
  app.use(apiRoutes(api).routes());
  app.use(transferRoutes(transfer).routes());
  app.use(router.allowedMethods());
  return app;
}
