/** What the sender of a request may do on the operations side. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Context, Middleware } from 'koa';
import type { Right, Target } from '../../access/rules/rule.ts';
import type { Identity } from '../../request-context.ts';
import { ClientRequest, directClient } from '../registry/client-request.ts';

export interface Permit {
  readonly identity: Identity;
  /** Whether it has a right for an image; without one, for the mirror as a whole. */
  has(right: Right, image?: Target): boolean;
  /**
   * Checks that it has a right for anything at all. For a request whose images are not known yet: nothing of its body is
   * read for a client that may do nothing.
   *
   * @throws {ApiError} 401 or 403
   */
  expectSome(right: Right): void;
  /**
   * Decides, and counts the decision: all of `rights` are needed for each image; without images, for the mirror as a
   * whole.
   *
   * @throws {ApiError} 401 or 403
   */
  require(rights: readonly Right[], images?: readonly Target[]): void;
  /**
   * Counts the decision, for a list: unlike {@link require}, it leaves out what the sender may not see, and refuses
   * nothing.
   *
   * @returns whether it has all of `rights` for an image
   */
  only(rights: readonly Right[]): (image: Target) => boolean;
}

/** @throws {ApiError} 401, 429 or 503: its credentials are wrong, or cannot be checked */
export type Admit = (message: IncomingMessage, caller: ClientRequest) => Promise<Permit>;

export interface OperationsState {
  caller: ClientRequest;
  permit: Permit;
}

/** One request and its reply, as Koa hands them around. */
export type OperationsReply = Context & { state: OperationsState };

/** Of everybody where there is no access control, and of whoever can open the Unix socket. */
const OPERATOR: Permit = {
  identity: { kind: 'operator' },
  has: () => true,
  expectSome: () => undefined,
  require: () => undefined,
  only: () => () => true,
};

export async function admitEverybody(): Promise<Permit> {
  return OPERATOR;
}

export function findPermit(admit: Admit): Middleware<OperationsState> {
  return async (ctx, next) => {
    const caller = new ClientRequest(randomUUID(), ctx.res, directClient);
    const permit = await admit(ctx.req, caller);
    caller.identity = permit.identity;
    Object.assign(ctx.state, { caller, permit });
    await next();
  };
}
