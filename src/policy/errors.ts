/** What is not let in, and what is not decided yet. */
import type { Refusal } from './parts/part.ts';

/** A policy does not let it in. Becomes 403 DENIED. The message names the policy, what is wrong, and what to do. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError';
  readonly policy: string;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(policy: string, { reason, advice, detail }: Refusal) {
    super(`the policy ${policy} does not let this in: ${reason}; ${advice}`);
    this.policy = policy;
    this.detail = { policy, ...detail };
  }
}

/** It is not known whether it may come in, so it may not. Becomes 503 with `Retry-After`. */
export class UndecidedError extends Error {
  override readonly name = 'UndecidedError';
  readonly retryAfterMs: number;
  readonly detail: Readonly<Record<string, unknown>>;

  constructor(message: string, retryAfterMs: number, detail: Record<string, unknown>) {
    super(message);
    this.retryAfterMs = retryAfterMs;
    this.detail = detail;
  }
}
