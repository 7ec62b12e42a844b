import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { ListenError } from '../../../src/http/server/listen-address.ts';
import { Listener } from '../../../src/http/server/listener.ts';
import { cleanUp } from '../../helpers/cleanup.ts';

const handler = async () => undefined;

test('a port that is in use: the error says so in words, names the key, and keeps the code', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  cleanUp(t, () => void other.close());
  await new Promise<void>((resolve) => other.once('listening', resolve));
  const { port } = other.address() as AddressInfo;
  await assert.rejects(
    Listener.open({ host: '127.0.0.1', port }, handler, { key: 'server.listen' }),
    (error) => {
      assert.ok(error instanceof ListenError);
      const expected = `cannot listen on 127.0.0.1:${port}: it is in use: stop the program that uses it, or choose another one (EADDRINUSE); server.listen in the configuration names it`;
      assert.equal(error.message, expected);
      return true;
    },
  );
});

for (const [what, address, words] of [
  [
    'an address of another machine',
    { host: '192.0.2.1', port: 0 },
    /this machine does not have the address.*\(EADDRNOTAVAIL\)/,
  ],
  [
    'a name without an address',
    { host: 'nowhere.invalid', port: 0 },
    /has no address here.*\(E(NOTFOUND|AI_AGAIN)\)|the system refuses it/,
  ],
  [
    'a socket in a folder that is not there',
    { socket: '/nowhere/at-all/millpond.sock', mode: 0o600 },
    /its folder does not exist|refuses it|may not write/,
  ],
] as const) {
  test(`${what} is refused in words`, async () => {
    await assert.rejects(Listener.open(address, handler, { key: 'operations.listen' }), words);
  });
}
