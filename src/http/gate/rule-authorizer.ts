/** Decides by the rules of the configuration whether a pull is allowed. */
import type { IncomingMessage } from 'node:http';
import { RegistryError } from '../../oci/errors.ts';
import { ANONYMOUS, type Identity } from '../../request-context.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { Admission, Authorizer } from '../registry/authorizer.ts';
import type { ClientRequest } from '../registry/client-request.ts';
import type { PingRequest, PullRequest } from '../registry/routes.ts';
import type { Challenge, Challenger } from './challenge.ts';
import { countDecision, decisionOf, identityOf } from './decisions.ts';
import type { Arrived, Gate } from './gate.ts';
import { refusalOf } from './refusals.ts';

export class RuleAuthorizer implements Authorizer {
  readonly #gate: Gate;
  readonly #challenger: Challenger;
  readonly #metrics: Metrics;

  constructor(context: { gate: Gate; challenger: Challenger; metrics: Metrics }) {
    this.#gate = context.gate;
    this.#challenger = context.challenger;
    this.#metrics = context.metrics;
  }

  authorize(
    request: Readonly<PullRequest> | PingRequest,
    message: IncomingMessage,
    caller: ClientRequest,
  ): Admission | Promise<Admission> {
    try {
      const arrived = this.#gate.arrivalOf(message, caller);
      return arrived instanceof Promise
        ? this.#authorizeLater(arrived, request, message, caller)
        : this.#admit(arrived, request, message, caller);
    } catch (error) {
      throw this.#refusal(error, request, message, caller);
    }
  }

  async #authorizeLater(
    arriving: Promise<Arrived>,
    request: Readonly<PullRequest> | PingRequest,
    message: IncomingMessage,
    caller: ClientRequest,
  ): Promise<Admission> {
    try {
      return this.#admit(await arriving, request, message, caller);
    } catch (error) {
      throw this.#refusal(error, request, message, caller);
    }
  }

  #admit(
    arrived: Arrived,
    request: Readonly<PullRequest> | PingRequest,
    message: IncomingMessage,
    caller: ClientRequest,
  ): Admission {
    const identity = identityOf(arrived.asker);
    caller.identity = identity; // for the log line of a refusal
    return request.kind === 'ping'
      ? this.#admitPing(arrived, identity, message, caller)
      : this.#admitPull(request, arrived, identity, message, caller);
  }

  /** The wire error of what was thrown. Wrong credentials are 401, whatever anonymous clients may do. */
  #refusal(
    error: unknown,
    request: Readonly<PullRequest> | PingRequest,
    message: IncomingMessage,
    caller: ClientRequest,
  ): unknown {
    if (error instanceof RegistryError) return error; // decided by the rules, and counted
    const refusal = refusalOf(error, (text) =>
      this.#challenger.unauthorized(message, caller.client, {
        message: text,
        error: 'invalid_token',
        scoped: request.kind !== 'ping',
      }),
    );
    if (refusal instanceof RegistryError) countDecision(this.#metrics, ANONYMOUS, decisionOf(refusal));
    return refusal;
  }

  /** `/v2/` is 401 for a client without credentials even where it may pull something: else docker never logs in. */
  #admitPing(
    { asker, origin }: Arrived,
    identity: Identity,
    message: IncomingMessage,
    caller: ClientRequest,
  ): Admission {
    if (origin !== undefined || this.#gate.access.rules.isSomebody(asker) || this.#isUnchallenged(caller)) {
      return { identity, cachedOnly: false };
    }
    throw this.#unauthorized(message, caller, identity, { message: 'log in to use this mirror' });
  }

  #admitPull(
    { upstream, repository }: Readonly<PullRequest>,
    { asker, origin }: Arrived,
    identity: Identity,
    message: IncomingMessage,
    caller: ClientRequest,
  ): Admission {
    const decision = this.#gate.access.rules.decide(asker, 'pull', { upstream, repository });
    if (decision.allowed) {
      const allowed = decision.kind === 'anonymous' ? ANONYMOUS : identityOf(asker, decision.kind);
      countDecision(this.#metrics, allowed, 'allowed');
      return { identity: allowed, cachedOnly: !decision.fetch, rule: decision.rule };
    }
    // The same words whether the thing exists or not.
    if (decision.somebody || (origin === undefined && this.#isUnchallenged(caller))) {
      countDecision(this.#metrics, identity, 'denied');
      throw new RegistryError('DENIED', {
        message: `no rule of this mirror lets you pull ${upstream}/${repository}`,
      });
    }
    const unknown = origin?.kind === 'anonymous' && origin.unknownCredentials;
    throw this.#unauthorized(message, caller, identity, {
      message: unknown
        ? 'the credentials sent are not known here, and this may not be pulled without'
        : `log in to pull ${upstream}/${repository}`,
      error: origin === undefined ? undefined : 'insufficient_scope',
      scoped: true,
    });
  }

  /** Daemons and kubelets that answer a challenge with the password of another registry. */
  #isUnchallenged({ client }: ClientRequest): boolean {
    return this.#gate.access.noChallenge.has(client.address);
  }

  #unauthorized(
    message: IncomingMessage,
    caller: ClientRequest,
    identity: Identity,
    challenge: Challenge,
  ): RegistryError {
    countDecision(this.#metrics, identity, 'unauthorized');
    return this.#challenger.unauthorized(message, caller.client, challenge);
  }
}
