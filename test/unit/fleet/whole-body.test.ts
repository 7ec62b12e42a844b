/** A body counts only if all of it came. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { streamOf, wholeBody } from '../../../src/fleet/engines/whole-body.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';

const clock = new FakeClock();
clock.impatient = false;

async function read(body: Readable, length: number): Promise<string> {
  let text = '';
  for await (const piece of wholeBody('it', body, length, clock)) text += piece.toString();
  return text;
}

test('a body of which nothing is read is closed with its stream', async () => {
  const body = Readable.from([Buffer.from('ab')]);
  const closed = once(body, 'close');
  streamOf(wholeBody('it', body, 2, clock), body).destroy();
  await closed;
});

test('all of a body is read', async () => {
  assert.equal(await read(Readable.from([Buffer.from('ab'), Buffer.from('c')]), 3), 'abc');
});

test('a body that ends early is an outage', async () => {
  await assert.rejects(read(Readable.from([Buffer.from('ab')]), 3), {
    code: 'unavailable',
    message: 'it sent too little',
  });
});

test('a body that breaks is an outage', async () => {
  const body = Readable.from(
    (async function* () {
      yield Buffer.from('ab');
      throw new Error('reset');
    })(),
  );
  await assert.rejects(read(body, 3), { code: 'unavailable', message: 'the connection to it broke' });
});

test('a body that pauses for two seconds is given up, and its connection ended', async () => {
  const body = new Readable({ read: () => undefined });
  const reading = read(body, 3);
  await clock.waited();
  clock.advance(1_999);
  assert.equal(body.destroyed, false);
  clock.advance(1);
  await assert.rejects(reading, { code: 'timeout' });
  assert.equal(body.destroyed, true);
});
