import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ownSigningKey, signingKeyFrom } from '../../../src/access/tokens/signing-key.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

test('the first start makes a signing key that only its owner can read', async (t) => {
  const directory = await tempDir(t);
  const { key, warning } = await ownSigningKey(directory);
  assert.equal(warning, undefined);
  assert.equal(key.algorithm, 'ES256');
  assert.deepEqual(await readdir(directory), ['signing-key.pem']);
  assert.equal((await stat(join(directory, 'signing-key.pem'))).mode & 0o777, 0o600);
});

test('the next start finds the same key', async (t) => {
  const directory = await tempDir(t);
  const first = await ownSigningKey(directory);
  const second = await ownSigningKey(directory);
  assert.equal(second.key.id, first.key.id);
  assert.ok(second.key.privateKey.equals(first.key.privateKey));
});

test('a start that died while it wrote the key is no obstacle, and what it left is not kept', async (t) => {
  const directory = await tempDir(t);
  await writeFile(join(directory, 'signing-key.pem.new'), 'half', { mode: 0o666 });
  await ownSigningKey(directory);
  assert.deepEqual(await readdir(directory), ['signing-key.pem']);
  assert.equal((await stat(join(directory, 'signing-key.pem'))).mode & 0o777, 0o600);
});

test('a key that every user can read or change is used, with a warning', async (t) => {
  const directory = await tempDir(t);
  await ownSigningKey(directory);
  const file = join(directory, 'signing-key.pem');
  for (const mode of [0o604, 0o602]) {
    await chmod(file, mode);
    assert.match(
      (await ownSigningKey(directory)).warning ?? '',
      /every user of this machine: chmod o-rwx .*signing-key\.pem$/,
    );
  }
  await chmod(file, 0o640); // Kubernetes gives secrets to a group
  assert.equal((await ownSigningKey(directory)).warning, undefined);
});

async function keyFile(t: TestContext, content: string | Buffer): Promise<string> {
  const file = join(await tempDir(t), 'key');
  await writeFile(file, content, { mode: 0o600 });
  return file;
}

const formats: Record<string, (key: KeyObject) => string | Buffer> = {
  'PEM, as openssl genpkey writes it': (key) => key.export({ type: 'pkcs8', format: 'pem' }),
  JWK: (key) => `${JSON.stringify(key.export({ format: 'jwk' }))}\n`,
};

for (const [format, write] of Object.entries(formats)) {
  for (const [kind, algorithm, make] of [
    ['P-256', 'ES256', p256],
    ['Ed25519', 'EdDSA', () => generateKeyPairSync('ed25519').privateKey],
  ] as const) {
    test(`a signing key may be a file with a key of ${kind} as ${format}`, async (t) => {
      const privateKey = make();
      const { key } = await signingKeyFrom(await keyFile(t, write(privateKey)));
      assert.equal(key.algorithm, algorithm);
      assert.ok(key.privateKey.equals(privateKey));
    });
  }
}

test('the same key means the same mirror, in whatever form it comes; another key means another', async (t) => {
  const privateKey = p256();
  const ids = [];
  for (const write of Object.values(formats))
    ids.push((await signingKeyFrom(await keyFile(t, write(privateKey)))).key.id);
  assert.equal(ids[0], ids[1]);
  assert.match(ids[0] ?? '', /^millpond:[\w-]{22}$/);
  const other = await signingKeyFrom(await keyFile(t, p256().export({ type: 'pkcs8', format: 'pem' })));
  assert.notEqual(other.key.id, ids[0]);
});

test('an elliptic-curve key as openssl ecparam writes it is a signing key, too', async (t) => {
  const file = await keyFile(t, p256().export({ type: 'sec1', format: 'pem' }));
  assert.equal((await signingKeyFrom(file)).key.algorithm, 'ES256');
});

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const bad: Record<string, [string | Buffer, RegExp]> = {
  'nothing in it': ['', /holds no private key/],
  'text in it': ['swordfish', /holds no private key/],
  'broken JSON in it': ['{"d":"swordfish', /holds no private key/],
  'a key that is encrypted': [
    p256().export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'swordfish' }),
    /holds no private key/,
  ],
  'a public key': [
    generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }),
    /holds no private key/,
  ],
  'an RSA key': [rsa.export({ type: 'pkcs8', format: 'pem' }), /P-256 or Ed25519/],
  'a key of another curve': [
    generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey.export({ type: 'pkcs8', format: 'pem' }),
    /P-256 or Ed25519/,
  ],
  'a megabyte in it': [Buffer.alloc(1024 * 1024), /not a file with a key/],
};

for (const [what, [content, message]] of Object.entries(bad)) {
  test(`a signing key file with ${what} keeps the mirror from starting, with a message that repeats nothing of it`, async (t) => {
    const file = await keyFile(t, content);
    await assert.rejects(signingKeyFrom(file), (error: Error) => {
      assert.equal(error.name, 'SigningKeyError');
      assert.match(error.message, message);
      assert.ok(error.message.includes(file));
      assert.ok(!error.message.includes('swordfish'));
      return true;
    });
  });
}

test('a signing key file that is missing keeps the mirror from starting, and none is made in its place', async (t) => {
  const file = join(await tempDir(t), 'key');
  await assert.rejects(signingKeyFrom(file), { name: 'SigningKeyError', message: /key is missing/ });
  await assert.rejects(readFile(file), { code: 'ENOENT' });
});

test('a cache directory in which no key can be written says so', async (t) => {
  const directory = join(await tempDir(t), 'missing');
  await assert.rejects(ownSigningKey(directory), { name: 'SigningKeyError', message: /cannot be written/ });
});

test('a damaged key in the cache directory is told of, not replaced: all sessions would end', async (t) => {
  const directory = await tempDir(t);
  await writeFile(join(directory, 'signing-key.pem'), 'damaged');
  await assert.rejects(ownSigningKey(directory), {
    name: 'SigningKeyError',
    message: /holds no private key/,
  });
  assert.equal(await readFile(join(directory, 'signing-key.pem'), 'utf8'), 'damaged');
});
