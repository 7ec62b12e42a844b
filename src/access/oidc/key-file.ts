/** Reads keys from a file, for a mirror that cannot reach the issuer. */
import { readFile, stat } from 'node:fs/promises';
import type { CryptoKey } from 'jose';
import { SingleFlight } from '../../single-flight.ts';
import type { Logger } from '../../telemetry/log.ts';
import { IssuerError, JwtError } from './errors.ts';
import { type JwtHeader, type KeySet, type KeySource, readKeySet } from './key-set.ts';

/**
 * A JWK set in a file. It is read again when it has changed. If the new content cannot be used, that is logged and the
 * old keys stay in use.
 */
export class KeyFile implements KeySource {
  readonly #issuer: string;
  readonly #file: string;
  readonly #logger: Logger;
  readonly #flight = new SingleFlight<void>();
  #keys: KeySet | undefined;
  #version = '';

  /** @param issuer its name in the configuration */
  constructor(issuer: string, file: string, logger: Logger) {
    this.#issuer = issuer;
    this.#file = file;
    this.#logger = logger;
  }

  async find(header: JwtHeader): Promise<CryptoKey> {
    await this.#flight.run('update', () => this.#update()).result;
    if (this.#keys === undefined) throw new IssuerError('unavailable', this.#issuer);
    const key = await this.#keys(header);
    if (key === undefined)
      throw new JwtError('unknown-key', 'the JWT is signed with a key that is not in use');
    return key;
  }

  async #update(): Promise<void> {
    const version = await versionOf(this.#file);
    if (version === this.#version) return;
    this.#version = version; // also of a bad file, so that it is logged once
    try {
      this.#keys = readKeySet(parse(await readFile(this.#file, 'utf8')));
    } catch (error) {
      const line = { issuer: this.#issuer, file: this.#file, reason: (error as Error).message };
      this.#logger.warn(line, 'the file with the keys of an issuer cannot be used: the old keys stay in use');
    }
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('it is not JSON'); // does not quote it: the path may lead to a secret by mistake
  }
}

async function versionOf(file: string): Promise<string> {
  try {
    // Uses ctime, not mtime: tools set mtime back, and a chmod that makes the file readable does not change it.
    const { ctimeNs, size, ino } = await stat(file, { bigint: true });
    return `${ctimeNs} ${size} ${ino}`;
  } catch {
    return 'missing'; // reading the file then reports why
  }
}
