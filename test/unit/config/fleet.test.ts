import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from '../../../src/config/errors.ts';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();
const FLEET = 'objects: { bucket: millpond }, secret: { file: /secret }';

async function messages(text: string): Promise<string[]> {
  try {
    await folder.load(text);
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
}

test('a fleet needs a bucket and a secret, and nothing else', async () => {
  assert.deepEqual(await messages(`fleet: { ${FLEET} }`), []);
  assert.equal((await messages('fleet: {}')).length, 2);
});

test('with a coordinator, the other nodes must be able to reach this one', async () => {
  const coordinator = 'coordinator: { url: valkey://valkey:6379 }';
  const [problem = ''] = await messages(`fleet: { ${FLEET}, ${coordinator} }`);
  assert.match(problem, /^fleet\.coordinator: needs advertise: the URL/);
  for (const more of ['advertise: http://10.0.0.3:5002', 'listen: 10.0.0.3:5002'])
    assert.deepEqual(await messages(`fleet: { ${FLEET}, ${coordinator}, ${more} }`), []);
});

test('the size of the store needs a coordinator, because nobody else knows what is used', async () => {
  const sized = FLEET.replace('bucket: millpond', 'bucket: millpond, maxSize: 10TiB');
  const [problem = ''] = await messages(`fleet: { ${sized} }`);
  assert.match(problem, /^fleet\.objects\.maxSize: needs coordinator: .*lifecycle rule/);
  const more = 'coordinator: { url: valkey://valkey:6379 }, listen: 10.0.0.3:5002';
  assert.deepEqual(await messages(`fleet: { ${sized}, ${more} }`), []);
  const none = FLEET.replace('bucket: millpond', 'bucket: millpond, maxSize: none');
  assert.deepEqual(await messages(`fleet: { ${none} }`), []);
});

test('the listener of the fleet cannot have the address of another one', async () => {
  const fleet = `${FLEET}, coordinator: { url: valkey://valkey:6379 }, listen: 127.0.0.1:5001`;
  const [problem = ''] = await messages(`fleet: { ${fleet} }`);
  assert.match(problem, /^fleet\.listen: cannot be opened beside operations\.listen, 127\.0\.0\.1:5001/);
});

test('a password is not written into the URL of the coordinator', async () => {
  const url = 'valkey://millpond:hunter2@valkey:6379';
  const [problem = ''] = await messages(`fleet: { ${FLEET}, coordinator: { url: '${url}' } }`);
  assert.match(problem, /^fleet\.coordinator\.url: must be a URL such as/);
  assert.ok(!problem.includes('hunter2'), problem);
});
