/** The token endpoint: clients exchange what they log in with for a token of the mirror. */
import type { IncomingMessage } from 'node:http';
import type { Middleware } from 'koa';
import type { GrantedToken, TokenRequest } from '../../access/control/token-exchange.ts';
import { RegistryError } from '../../oci/errors.ts';
import { ANONYMOUS } from '../../request-context.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { PullReply, PullState } from '../registry/pull-state.ts';
import { TOKEN_PATH } from './challenge.ts';
import { countDecision, decisionOf } from './decisions.ts';
import { clientOf, type Gate } from './gate.ts';
import { refusalOf } from './refusals.ts';

/** A JWT has 16 KiB at most, and three characters for each that must be escaped are rare in it. */
const FORM_MAX_BYTES = 64 * 1024;

export function answerTokenRequests(gate: Gate, metrics: Metrics): Middleware<PullState> {
  return async (ctx, next) => {
    const [path, query = ''] = (ctx.req.url ?? '').split('?');
    if (path !== TOKEN_PATH) return next();
    ctx.state.path = TOKEN_PATH; // the query names accounts
    ctx.state.guarded = 'no-store';
    const granted = await grant(ctx, query, gate, metrics);
    ctx.set('Cache-Control', 'no-store');
    ctx.type = 'application/json';
    ctx.body = JSON.stringify(replyOf(granted));
  };
}

async function grant(ctx: PullReply, query: string, gate: Gate, metrics: Metrics): Promise<GrantedToken> {
  const { req, state } = ctx;
  const request = await requestOf(req, query);
  const { exchange, rules } = gate.access;
  try {
    if (request.credentials !== undefined) gate.requireConfidential(state.context.client);
    const mayBeAnonymous = rules.mayDoSomething(gate.connectionOf(req, state.context), 'pull');
    return await exchange.grant(request, clientOf(state.context), mayBeAnonymous);
  } catch (error) {
    const refusal = refusalOf(
      error,
      // RFC 9110, 15.5.2 demands a challenge. At this place Basic is the way to log in.
      (message) =>
        new RegistryError('UNAUTHORIZED', {
          message,
          headers: { 'WWW-Authenticate': 'Basic realm="millpond", charset="UTF-8"' },
        }),
    );
    if (refusal instanceof RegistryError) countDecision(metrics, ANONYMOUS, decisionOf(refusal));
    throw refusal;
  }
}

/** @throws {RegistryError} 400, 405 or 413 */
async function requestOf(message: IncomingMessage, query: string): Promise<TokenRequest> {
  if (message.method === 'POST') return formRequest(await readForm(message));
  if (message.method !== 'GET') {
    throw new RegistryError('UNSUPPORTED', {
      message: 'a token is asked for by GET or POST',
      headers: { Allow: 'GET, POST' },
    });
  }
  const asked = new URLSearchParams(query);
  const { authorization } = message.headers;
  return {
    credentials: authorization === undefined ? undefined : { header: authorization },
    hasScope: hasScope(asked),
    offline: asked.get('offline_token') === 'true',
  };
}

function formRequest(form: URLSearchParams): TokenRequest {
  const offline = form.get('access_type') === 'offline';
  const common = { hasScope: hasScope(form), offline };
  const [user, password] = [form.get('username'), form.get('password')];
  const refreshToken = form.get('refresh_token');
  const grant = form.get('grant_type');
  if (grant === 'password' && user !== null && password !== null)
    return { ...common, credentials: { user, password } };
  if (grant === 'refresh_token' && refreshToken !== null) return { ...common, credentials: { refreshToken } };
  throw new RegistryError('UNSUPPORTED', {
    status: 400,
    message:
      'the form must hold grant_type=password with username and password, or grant_type=refresh_token with refresh_token',
  });
}

function hasScope(parameters: URLSearchParams): boolean {
  return parameters.getAll('scope').some((scope) => scope !== '');
}

async function readForm(message: IncomingMessage): Promise<URLSearchParams> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of message.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk as Buffer);
    length += (chunk as Buffer).length;
    if (length > FORM_MAX_BYTES) {
      throw new RegistryError('UNSUPPORTED', {
        status: 413,
        message: `the form is longer than ${FORM_MAX_BYTES} bytes`,
      });
    }
  }
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
}

/** `token` for clients of the old form, `access_token` for those of OAuth 2. */
function replyOf({ accessToken, refreshToken, expiresIn, issuedAt }: GrantedToken): Record<string, unknown> {
  return {
    token: accessToken,
    access_token: accessToken,
    expires_in: expiresIn,
    issued_at: new Date(issuedAt).toISOString().replace(/\.\d{3}Z$/, 'Z'),
    ...(refreshToken === undefined ? {} : { refresh_token: refreshToken }),
  };
}
