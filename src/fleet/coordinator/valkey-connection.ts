/** The connection to a Valkey, or a Redis from version 7 on. Each decision is one script, so that nothing comes between its steps. */
import { createHash } from 'node:crypto';
import { createClient } from '@redis/client';
import { EngineError } from '../engines/errors.ts';

export interface ValkeySettings {
  /** `valkey:`, `valkeys:`, `redis:` or `rediss:`, without a password. */
  url: string;
  username: string | undefined;
  password: (() => Promise<string>) | undefined;
  /** PEM bundle to trust in addition to the usual authorities. */
  ca: string | undefined;
  /** Begins every key. */
  prefix: string;
}

const CONNECT_TIMEOUT_MS = 500;
const RECONNECT_MS = 500;
const RECONNECT_LONGEST_MS = 5_000;

export class ValkeyConnection {
  /** Begins every key. */
  readonly prefix: string;
  readonly #client: ReturnType<typeof createClient>;
  /** Why there is no connection; undefined while there is one. */
  #trouble: unknown;

  /** Connects in the background, again and again. */
  constructor({ url, username, password, ca, prefix }: ValkeySettings) {
    this.prefix = prefix;
    const isSecure = /^(?:valkeys|rediss):/.test(url);
    this.#client = createClient({
      url: url.replace(/^valkey/, 'redis'),
      ...(password === undefined
        ? {}
        : {
            credentialsProvider: {
              type: 'async-credentials-provider',
              credentials: async () => ({
                ...(username === undefined ? {} : { username }),
                password: await password(),
              }),
            },
          }),
      // A command that waited for a connection would come too late for whoever asked.
      disableOfflineQueue: true,
      socket: {
        connectTimeout: CONNECT_TIMEOUT_MS,
        reconnectStrategy: (tries) => Math.min(RECONNECT_MS * 2 ** tries, RECONNECT_LONGEST_MS),
        ...(isSecure ? { tls: true as const, ...(ca === undefined ? {} : { ca }) } : {}),
      },
    });
    this.#client.on('error', (error: unknown) => {
      this.#trouble = error; // whoever asks is told
    });
    this.#client.on('ready', () => {
      this.#trouble = undefined;
    });
    void this.#client.connect().catch(() => undefined);
  }

  /** @param keys lie in one slot of a cluster @throws {EngineError} */
  async run(script: string, keys: string[], args: string[]): Promise<unknown> {
    try {
      return await this.#client.eval(script, { keys, arguments: args });
    } catch (error) {
      throw this.#engineError(error);
    }
  }

  /** What it says of itself. @throws {EngineError} */
  async info(): Promise<string> {
    try {
      return await this.#client.info();
    } catch (error) {
      throw this.#engineError(error);
    }
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.#client.isOpen) this.#client.destroy();
  }

  /** Without a connection nothing is refused: it does not answer, whatever the reason. */
  #engineError(error: unknown): EngineError {
    if (this.#trouble === undefined) return engineError(error);
    const { message } = engineError(this.#trouble);
    return new EngineError('unavailable', message, { cause: this.#trouble });
  }
}

/** Spreads names over 256 slots of a cluster. @returns two digits, which stand in braces in a key */
export function slotOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 2);
}

export function unreadable(): EngineError {
  return new EngineError('invalid-response', 'the coordinator answered without what was asked for');
}

/** Its message may hold what somebody else wrote, so only its first word is passed on: `NOAUTH`, `LOADING`. */
function engineError(error: unknown): EngineError {
  const [, word = ''] = /^([A-Z]{3,20}) /.exec(error instanceof Error ? error.message : '') ?? [];
  if (word === 'NOAUTH' || word === 'WRONGPASS' || word === 'NOPERM') {
    const what = `the coordinator refuses us (${word}): check fleet.coordinator.username and password`;
    return new EngineError('denied', what, { cause: error });
  }
  const what = word === '' ? 'the coordinator cannot be reached' : `the coordinator answered ${word}`;
  return new EngineError('unavailable', what, { cause: error });
}
