import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keySchemaOf } from '../../../src/config/file/key-schema.ts';
import { configSchema } from '../../../src/config/schema.ts';

test('the keys of the configuration are worked out once, however often a wrong file is loaded', () => {
  assert.equal(keySchemaOf(configSchema), keySchemaOf(configSchema));
});
