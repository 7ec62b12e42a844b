import assert from 'node:assert/strict';
import { rename, rm, utimes } from 'node:fs/promises';
import { suite, test } from 'node:test';
import { inspect } from 'node:util';
import { SecretError } from '../../../src/config/errors.ts';
import { Secret } from '../../../src/config/secrets.ts';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();

const YESTERDAY = new Date('2026-01-01T00:00:00Z');
const TODAY = new Date('2026-01-02T00:00:00Z');

/** `code message` of the SecretError that reading `secret` throws. */
async function failure(secret: Secret): Promise<string> {
  const error = await secret.read().then(
    () => assert.fail('the secret was read'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof SecretError);
  return `${error.code} ${error.message}`;
}

suite('a secret in the environment', () => {
  test('has the value that the variable had at the start', async () => {
    const environment = { TOKEN: 'swordfish\n' };
    const secret = new Secret({ env: 'TOKEN' }, environment);
    environment.TOKEN = 'changed';
    assert.equal(await secret.read(), 'swordfish\n');
  });

  test('that is missing or empty is reported with its name', async () => {
    assert.equal(
      await failure(new Secret({ env: 'TOKEN' }, {})),
      'missing environment variable TOKEN is not set',
    );
    assert.equal(
      await failure(new Secret({ env: 'TOKEN' }, { TOKEN: '' })),
      'empty environment variable TOKEN is empty',
    );
  });
});

suite('a secret in a file', () => {
  test('loses the line breaks at its end, and keeps all others', async () => {
    const file = await folder.write('trim', ' one\ntwo \r\n\n');
    assert.equal(await new Secret({ file }, {}).read(), ' one\ntwo ');
  });

  test('is read again when its time of change is different', async () => {
    const file = await folder.write('mtime', 'first');
    await utimes(file, YESTERDAY, YESTERDAY);
    const secret = new Secret({ file }, {});
    assert.equal(await secret.read(), 'first');
    await folder.write('mtime', 'other');
    await utimes(file, TODAY, TODAY);
    assert.equal(await secret.read(), 'other');
  });

  test('is read again when another file replaces it, as Kubernetes does', async () => {
    const file = await folder.write('swap', 'first');
    const next = await folder.write('swap.next', 'other');
    await utimes(file, YESTERDAY, YESTERDAY);
    await utimes(next, YESTERDAY, YESTERDAY);
    const secret = new Secret({ file }, {});
    assert.equal(await secret.read(), 'first');
    await rename(next, file);
    assert.equal(await secret.read(), 'other');
  });

  test('is read again when its size is different', async () => {
    const file = await folder.write('size', 'first');
    await utimes(file, YESTERDAY, YESTERDAY);
    const secret = new Secret({ file }, {});
    assert.equal(await secret.read(), 'first');
    await folder.write('size', 'longer');
    await utimes(file, YESTERDAY, YESTERDAY);
    assert.equal(await secret.read(), 'longer');
  });

  test('is not read again while nothing about the file changes', async () => {
    const file = await folder.write('same', 'first');
    await utimes(file, YESTERDAY, YESTERDAY);
    const secret = new Secret({ file }, {});
    assert.equal(await secret.read(), 'first');
    await folder.write('same', 'other');
    await utimes(file, YESTERDAY, YESTERDAY);
    assert.equal(await secret.read(), 'first');
  });

  test('that disappears is an error, and one that comes back is read', async () => {
    const file = await folder.write('gone', 'first');
    const secret = new Secret({ file }, {});
    assert.equal(await secret.read(), 'first');
    await rm(file);
    assert.equal(await failure(secret), `missing secret file ${file} cannot be read: no such file`);
    await folder.write('gone', 'back again');
    assert.equal(await secret.read(), 'back again');
  });

  test('that is empty is reported with its name', async () => {
    const file = await folder.write('empty', '\n');
    assert.equal(await failure(new Secret({ file }, {})), `empty secret file ${file} is empty`);
  });

  test('that is a folder is reported with its name', async () => {
    assert.equal(
      await failure(new Secret({ file: folder.path }, {})),
      `unreadable secret file ${folder.path} cannot be read: it is a folder`,
    );
  });
});

test('printing a secret never shows its value', async () => {
  const file = await folder.write('shown', 'swordfish');
  for (const secret of [new Secret({ file }, {}), new Secret({ env: 'TOKEN' }, { TOKEN: 'swordfish' })]) {
    assert.equal(await secret.read(), 'swordfish');
    for (const text of [inspect(secret, { showHidden: true, depth: 9 }), JSON.stringify(secret)]) {
      assert.ok(!text.includes('swordfish'), text);
    }
  }
});
