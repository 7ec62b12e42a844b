/** The key that signs the mirror's own tokens. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { calculateJwkThumbprint, exportJWK } from 'jose';
import { exposureWarning } from '../../files/exposed-secrets.ts';
import { SigningKeyError } from './errors.ts';

const FILE_NAME = 'signing-key.pem';
const MAX_BYTES = 64 * 1024;

export interface SigningKey {
  readonly algorithm: 'ES256' | 'EdDSA';
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** Names the key and with it the mirror: all mirrors with this key take each other's tokens. */
  readonly id: string;
}

export interface LoadedKey {
  readonly key: SigningKey;
  /** A warning for the log at start: users other than owner and group may read or change the file. */
  readonly warning?: string;
}

/**
 * The key in the cache directory, made at the first start. The directory must be open, so that no other mirror makes
 * one at the same time.
 *
 * @throws {SigningKeyError}
 */
export async function ownSigningKey(cacheDirectory: string): Promise<LoadedKey> {
  const file = join(cacheDirectory, FILE_NAME);
  return (await read(file)) ?? create(file);
}

/**
 * The key in `file`, which several mirrors behind one name share: PEM or JWK; P-256 or Ed25519.
 *
 * @throws {SigningKeyError}
 */
export async function signingKeyFrom(file: string): Promise<LoadedKey> {
  const loaded = await read(file);
  if (loaded === undefined) throw new SigningKeyError(`the signing key ${file} is missing`);
  return loaded;
}

async function read(file: string): Promise<LoadedKey | undefined> {
  let text: string;
  let mode: number;
  try {
    await using handle = await open(file, 'r');
    const stats = await handle.stat();
    if (!stats.isFile() || stats.size > MAX_BYTES) throw new Error('it is not a file with a key');
    mode = stats.mode;
    text = await handle.readFile('utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new SigningKeyError(`the signing key ${file} cannot be read: ${(error as Error).message}`);
  }
  const key = await parse(text, file);
  const warning = exposureWarning(file, mode);
  return warning === undefined ? { key } : { key, warning };
}

async function parse(text: string, file: string): Promise<SigningKey> {
  let privateKey: KeyObject;
  try {
    privateKey = text.trimStart().startsWith('{')
      ? createPrivateKey({ key: JSON.parse(text) as Record<string, string>, format: 'jwk' })
      : createPrivateKey(text);
  } catch {
    // Without the error: it could repeat a part of the key.
    throw new SigningKeyError(
      `${file} holds no private key that can be read: it must be an unencrypted PEM or a JWK`,
    );
  }
  return signingKey(privateKey, file);
}

async function signingKey(privateKey: KeyObject, file: string): Promise<SigningKey> {
  const algorithm = algorithmOf(privateKey);
  if (algorithm === undefined)
    throw new SigningKeyError(`the signing key ${file} must be an elliptic-curve key, P-256 or Ed25519`);
  const publicKey = createPublicKey(privateKey);
  const thumbprint = await calculateJwkThumbprint(await exportJWK(publicKey));
  // 128 bits of it. Not a secret: it identifies the key, and the signature proves it.
  return { algorithm, privateKey, publicKey, id: `millpond:${thumbprint.slice(0, 22)}` };
}

function algorithmOf({
  asymmetricKeyType,
  asymmetricKeyDetails,
}: KeyObject): SigningKey['algorithm'] | undefined {
  if (asymmetricKeyType === 'ed25519') return 'EdDSA';
  return asymmetricKeyDetails?.namedCurve === 'prime256v1' ? 'ES256' : undefined;
}

async function create(file: string): Promise<LoadedKey> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  // A half-written key would keep the mirror from starting, so it appears whole or not at all.
  const temporary = `${file}.new`;
  try {
    await rm(temporary, { force: true });
    await using handle = await open(temporary, 'wx', 0o600);
    await handle.writeFile(privateKey.export({ type: 'pkcs8', format: 'pem' }));
    await handle.sync();
    await rename(temporary, file);
  } catch (error) {
    throw new SigningKeyError(`the signing key ${file} cannot be written: ${(error as Error).message}`);
  }
  return { key: await signingKey(privateKey, file) };
}
