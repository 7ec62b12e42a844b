/** What is not let in. */
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
