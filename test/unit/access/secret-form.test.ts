import assert from 'node:assert/strict';
import { test } from 'node:test';
import { classify } from '../../../src/access/oidc/secret-form.ts';

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

for (const [secret, form] of [
  [`mpt_${'a'.repeat(43)}`, 'robot-token'],
  ['mpt_cut', 'robot-token'],
  [`mpt_${part({ alg: 'ES256' })}.${part({})}.c2ln`, 'robot-token'],
  [`${part({ alg: 'ES256' })}.${part({ iss: 'x' })}.c2ln`, 'jwt'],
  [`${part({ alg: 'none' })}.${part({ iss: 'x' })}.`, 'jwt'],
  [`${Buffer.from('{\n "alg": "ES256" }').toString('base64url')}.${part({})}.c2ln`, 'jwt'],
  ['hunter2', 'password'],
  ['', 'password'],
  ['correct.horse.battery', 'password'],
  ['easy.as.pie', 'password'],
  [`${part({ alg: 'ES256' })}.${part({})}`, 'password'],
  [`${part({ alg: 'ES256' })}.${part({})}.c2ln.c2ln`, 'password'],
  [`${part({ alg: 'ES256' })}.${part({})}.c2ln\n`, 'password'],
  [`${part({ alg: 'ES256' })}.${part({})}.c2+n`, 'password'],
] as const) {
  test(`a secret such as ${JSON.stringify(secret.slice(0, 40))} is taken for a ${form}`, () => {
    assert.equal(classify(secret), form);
  });
}
