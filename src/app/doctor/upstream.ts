/** Checks one upstream step by step. Each step builds on the one before it. */
import type { Clock } from '../../clock.ts';
import type { UpstreamConfig } from '../../config/schema.ts';
import type { Environment } from '../../config/secrets.ts';
import type { Logger } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { UpstreamError } from '../../upstream/errors.ts';
import { type Identity, Transport } from '../../upstream/network/transport.ts';
import { upstreamSettings } from '../upstreams.ts';
import { checkCertificate } from './checks/certificate.ts';
import { openConnection } from './checks/connection.ts';
import type { Endpoint } from './checks/context.ts';
import { DeadlineError, within } from './checks/deadline.ts';
import { checkLimit } from './checks/limit.ts';
import { authorizer, checkCredentials, readCredentials, tokenFailure, tokenServer } from './checks/login.ts';
import { checkName } from './checks/name.ts';
import { askRegistry, failureOf } from './checks/registry.ts';
import { CheckFailure, type CheckResult, type Finding } from './checks/result.ts';

/** Milliseconds, for one step. */
const STEP_MS = 8_000;

export interface Surroundings {
  environment: Environment;
  clock: Clock;
  metrics: Metrics;
  logger: Logger;
  identity: Identity;
  /** Ends all steps. */
  signal: AbortSignal;
}

export interface Examined {
  results: CheckResult[];
  /** See {@link Answer.skewMs}; of each URL that said the time. */
  skews: number[];
}

/** Checks each URL of an upstream. */
export async function examineUpstream(
  name: string,
  config: UpstreamConfig,
  surroundings: Surroundings,
): Promise<Examined> {
  const urls = [config.url, ...config.fallbackUrls];
  const examinations = urls.map(
    (url) => new Examination(urls.length === 1 ? name : `${name} (${url})`, surroundings),
  );
  await Promise.all(examinations.map((one, at) => one.run(name, urls[at] ?? config.url, config)));
  return {
    results: examinations.flatMap(({ results }) => results),
    skews: examinations.flatMap(({ skewMs }) => skewMs ?? []),
  };
}

class Examination {
  readonly results: CheckResult[] = [];
  skewMs: number | undefined;
  readonly #label: string;
  readonly #surroundings: Surroundings;

  constructor(label: string, surroundings: Surroundings) {
    this.#label = label;
    this.#surroundings = surroundings;
  }

  async run(name: string, url: string, config: UpstreamConfig): Promise<void> {
    let transport: Transport | undefined;
    try {
      const endpoint = await this.#step('settings', () => this.#endpoint(name, url, config));
      ({ transport } = endpoint);
      await this.#check('name', () => checkName(endpoint));
      await this.#connect(endpoint);
      await this.#logIn(endpoint);
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      const message = `what follows is not checked, because the check of ${error.check} failed`;
      if (error.check !== 'limit') this.#note('rest', { outcome: 'skipped', message });
    } finally {
      await transport?.close();
    }
  }

  async #endpoint(name: string, url: string, config: UpstreamConfig): Promise<Endpoint> {
    const { clock } = this.#surroundings;
    try {
      const settings = { ...(await upstreamSettings(name, config, this.#surroundings)), url };
      const target = new URL(url);
      const proxy = settings.proxyFor?.(target);
      const transport = new Transport(settings, this.#surroundings);
      return { name, url: target, config, settings, transport, proxy, clock };
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const advice = `check the files that upstreams.${name} names, and HTTPS_PROXY and HTTP_PROXY`;
      throw new CheckFailure(error.message, advice, error);
    }
  }

  async #connect(endpoint: Endpoint): Promise<void> {
    const timeoutMs = STEP_MS;
    await using connection = await this.#step('connection', (signal) =>
      openConnection(endpoint, { signal, timeoutMs }),
    );
    this.#note('connection', connection.finding);
    if (endpoint.url.protocol === 'https:')
      await this.#check('certificate', (signal) => checkCertificate(endpoint, connection.socket, signal));
    else this.#note('certificate', { outcome: 'skipped', message: 'it is reached without TLS (http://)' });
  }

  async #logIn(endpoint: Endpoint): Promise<void> {
    const answer = await this.#step('registry', (signal) => askRegistry(endpoint, signal));
    this.skewMs = answer.skewMs;
    this.#note('registry', answer.finding);
    const credentials = await this.#step('credentials', () => readCredentials(endpoint));
    const { demandsToken, authorize } = authorizer(endpoint, answer, credentials);
    const authorization = await this.#step(
      'token',
      (signal) => authorize(undefined, signal),
      (error) => tokenFailure(endpoint, error, credentials),
    );
    this.#note(
      'token',
      demandsToken
        ? { outcome: 'ok', message: `${tokenServer(endpoint, answer)} gives one` }
        : { outcome: 'skipped', message: 'none is needed' },
    );
    const obtained = { credentials, authorization };
    await this.#check('credentials', (signal) => checkCredentials(endpoint, answer, obtained, signal));
    await this.#check('limit', (signal) => checkLimit(endpoint, answer, authorize, signal));
  }

  async #check(check: string, work: (signal: AbortSignal) => Promise<Finding>): Promise<void> {
    this.#note(check, await this.#step(check, work));
  }

  /**
   * Runs a step and notes its failure.
   *
   * @param explain says which check failed, of a step that two of them build on
   * @throws {Stopped} it failed
   */
  async #step<T>(
    check: string,
    work: (signal: AbortSignal) => Promise<T>,
    explain?: (error: UpstreamError) => { check: string; failure: CheckFailure },
  ): Promise<T> {
    try {
      return await within(this.#surroundings, STEP_MS, work);
    } catch (error) {
      const told = error instanceof UpstreamError ? explain?.(error) : undefined;
      const failed = told?.check ?? check;
      const { message, advice } = told?.failure ?? this.#failure(error);
      this.#note(failed, { outcome: 'failed', message, advice });
      throw new Stopped(failed);
    }
  }

  /** @throws what is no failure of the upstream */
  #failure(error: unknown): CheckFailure {
    if (error instanceof CheckFailure) return error;
    if (error instanceof UpstreamError) return failureOf(error, error.upstream);
    if (error instanceof DeadlineError)
      return new CheckFailure(
        error.message,
        'check the firewall and the proxy, or ask whoever runs the registry whether it is overloaded',
        error,
      );
    throw error;
  }

  #note(check: string, finding: Finding): void {
    this.results.push({ check, upstream: this.#label, ...finding });
  }
}

/** Ends an examination. What failed has been noted. */
class Stopped extends Error {
  override readonly name = 'Stopped';
  readonly check: string;

  constructor(check: string) {
    super(check);
    this.check = check;
  }
}
