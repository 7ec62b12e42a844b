/** Robot tokens as the server knows them: a secret is looked up by its hash. */
import type { Clock } from '../../../clock.ts';
import type { CredentialIdentity } from '../../identity.ts';
import type { LastUses } from './last-uses.ts';
import { hashOfSecret, parseTokens, TOKENS_ENCODING, type TokenLine } from './token-lines.ts';

export interface TokenList {
  readonly byHash: ReadonlyMap<string, TokenLine>;
  readonly byName: ReadonlyMap<string, TokenLine>;
}

/** `expired`: the client has the right secret, so it may be told. */
export type TokenRefusal = 'unknown' | 'expired';

export interface RobotTokensContext {
  /** The tokens file as it is now. */
  tokens: () => Promise<TokenList>;
  lastUses: LastUses;
  clock: Clock;
}

/** @param file named in errors @throws {FileError} with the first bad line */
export function tokenList(content: Buffer, file: string): TokenList {
  const tokens = parseTokens(content.toString(TOKENS_ENCODING), file);
  return {
    byHash: new Map(tokens.map((token) => [token.secretHash, token])),
    byName: new Map(tokens.map((token) => [token.name, token])),
  };
}

export class RobotTokens {
  readonly #context: RobotTokensContext;

  constructor(context: RobotTokensContext) {
    this.#context = context;
  }

  /**
   * The time of a look-up may tell something about the hash of what was sent. A secret cannot be found from that, so no
   * comparison in constant time is needed.
   */
  async identify(secret: string): Promise<CredentialIdentity | TokenRefusal> {
    const { byHash } = await this.#context.tokens();
    const token = byHash.get(hashOfSecret(secret));
    if (token === undefined) return 'unknown';
    if (this.#hasExpired(token)) return 'expired';
    this.#context.lastUses.record(token.name);
    return { kind: 'token', name: token.name, fingerprint: token.fingerprint };
  }

  /** Whether the token is still there, with the same secret, and has not expired. */
  async isCurrent(name: string, fingerprint: string): Promise<boolean> {
    const { byName } = await this.#context.tokens();
    const token = byName.get(name);
    return token?.fingerprint === fingerprint && !this.#hasExpired(token);
  }

  #hasExpired({ expires }: TokenLine): boolean {
    return this.#context.clock.now() >= expires;
  }
}
