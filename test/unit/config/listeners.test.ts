import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { suite, test } from 'node:test';
import { ConfigFolder } from '../../helpers/config-folder.ts';

const folder = await ConfigFolder.create();

async function listen(host: string, port: number): Promise<Server> {
  const server = createServer().listen({ host, port });
  await once(server, 'listening');
  return server;
}

function written(host: string, port: number): string {
  return `"${host.includes(':') ? `[${host}]` : host}:${port}"`;
}

suite('two listeners on one port are refused if, and only if, the system would not open both', () => {
  for (const [first, second] of [
    ['127.0.0.1', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.2'],
    ['0.0.0.0', '127.0.0.1'],
    ['127.0.0.1', '0.0.0.0'],
    ['0.0.0.0', '::1'],
    ['::', '127.0.0.1'],
    ['::1', '::'],
    ['::', '0.0.0.0'],
    ['::1', '0:0:0:0:0:0:0:1'],
    ['127.0.0.1', '::1'],
  ] as const) {
    test(`${first} and ${second}`, async (t) => {
      const server = await listen(first, 0);
      t.after(() => server.close());
      const address = server.address();
      assert.ok(typeof address === 'object' && address !== null);
      const { port } = address;
      const both = await listen(second, port).then(
        (other) => other.close(),
        (error: NodeJS.ErrnoException) => error.code,
      );
      const text = `server: { listen: ${written(first, port)} }\noperations: { listen: ${written(second, port)} }\n`;
      const problems = await folder.load(text).then(
        () => [],
        (error: Error) => error.message.split('\n'),
      );
      if (both === 'EADDRINUSE') {
        assert.equal(problems.length, 1);
        assert.match(
          problems[0] ?? '',
          /^m\.yaml:2:23: operations\.listen: cannot be opened beside server\.listen, /,
        );
      } else assert.deepEqual(problems, []);
    });
  }
});

test('the mistake stands at the address that is written, if the other one is a default', async () => {
  assert.deepEqual(await folder.problems('server: { listen: 127.0.0.1:5001 }\n'), [
    'm.yaml:1:19: server.listen: cannot be opened beside operations.listen, 127.0.0.1:5001: give one of the two another port',
  ]);
});

test('any free port, twice, is two ports', async () => {
  const { server } = await folder.load('server: { listen: "[::]:0" }\noperations: { listen: "[::]:0" }\n');
  assert.equal(server.listen.port, 0);
});
