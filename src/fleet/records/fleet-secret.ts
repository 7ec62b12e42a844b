/**
 * The secret that all nodes of a fleet share. It signs what decides anything: whoever can write into the bucket, and does
 * not know the secret, can give nobody a permission.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { WatchedFiles, type WatchedFilesContext } from '../../files/watched-files.ts';

/** RFC 2104 asks for at least the length of the hash. */
const SECRET_MIN_BYTES = 32;
const KEY_BYTES = 32;

export class FleetSecret {
  readonly #keys: WatchedFiles<Buffer[]>;

  private constructor(keys: WatchedFiles<Buffer[]>) {
    this.#keys = keys;
  }

  /**
   * @param file has one line, or two: the first signs, and both are believed, so that a new secret reaches node after node
   * @throws {FileError} it cannot be read @throws {Error} it holds no secret, or one that can be guessed
   */
  static async open(file: string, context: WatchedFilesContext): Promise<FleetSecret> {
    const parse = ([content = Buffer.alloc(0)]: readonly Buffer[]) => keysOf(content.toString('utf8'));
    return new FleetSecret(await WatchedFiles.open({ paths: [file], secrets: [file], parse }, context));
  }

  /** Signs `text`, which stands in the object `name`: under another name it says nothing. */
  async sign(name: string, text: string): Promise<string> {
    const [first = Buffer.alloc(0)] = await this.#keys.current();
    return macOf(first, name, text).toString('hex');
  }

  async isSigned(name: string, text: string, mac: string): Promise<boolean> {
    const given = Buffer.from(mac, 'hex');
    return (await this.#keys.current()).some((key) => {
      const right = macOf(key, name, text);
      return given.length === right.length && timingSafeEqual(given, right);
    });
  }

  /** A value that differs for different `secrets` and tells nothing about them. */
  async fingerprint(secret: string): Promise<string> {
    return this.sign('identity', secret);
  }
}

function keysOf(text: string): Buffer[] {
  const lines = text.split(/\r?\n/).filter((line) => line !== '');
  if (lines.length === 0)
    throw new Error('holds no secret: write one line, such as that of openssl rand -hex 32');
  if (lines.length > 2)
    throw new Error('holds more than two lines: the new secret, and below it the old one');
  if (lines.some((line) => Buffer.byteLength(line) < SECRET_MIN_BYTES))
    throw new Error(
      `holds a secret of fewer than ${SECRET_MIN_BYTES} characters: make one with openssl rand -hex 32`,
    );
  return lines.map((line) => Buffer.from(hkdfSync('sha256', line, '', 'millpond fleet records', KEY_BYTES)));
}

/** A NUL stands in no name, so that no other pair of name and text has the same MAC. */
function macOf(key: Buffer, name: string, text: string): Buffer {
  return createHmac('sha256', key).update(`${name}\0${text}`).digest();
}
