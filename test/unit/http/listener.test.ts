import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { Listener, type ListenerOptions } from '../../../src/http/server/listener.ts';
import { selfSigned } from '../../helpers/certificates.ts';
import { cleanUp } from '../../helpers/cleanup.ts';

const CERTIFICATE = selfSigned('mirror.test');
const BOTH: [string, ListenerOptions][] = [
  ['http', {}],
  ['https', { tls: CERTIFICATE }],
];
const NOT_FOR_EVER = { timeout: 5_000 };
const LONG_MS = 3_600_000;

async function listen(
  t: TestContext,
  options: ListenerOptions,
  answer: (request: IncomingMessage, response: ServerResponse) => void = (_request, response) =>
    void response.end('answered'),
): Promise<Listener> {
  const handler = async (request: IncomingMessage, response: ServerResponse) => answer(request, response);
  const listener = await Listener.open({ host: '127.0.0.1', port: 0 }, handler, options);
  cleanUp(t, () => listener.drain(0));
  return listener;
}

function portOf(listener: Listener): number {
  return Number(new URL(`http://${listener.address}`).port);
}

/** A connection that has gone through its handshake, if there is one. */
async function connectTo(t: TestContext, listener: Listener, { tls }: ListenerOptions): Promise<Socket> {
  const port = portOf(listener);
  const socket =
    tls === undefined
      ? connect(port, '127.0.0.1')
      : connectTls({ port, host: '127.0.0.1', servername: 'mirror.test', ca: CERTIFICATE.cert });
  cleanUp(t, () => socket.destroy());
  await once(socket, tls === undefined ? 'connect' : 'secureConnect');
  return socket;
}

/** What comes until the server ends the connection. */
async function readAll(socket: Socket): Promise<string> {
  let text = '';
  for await (const piece of socket) text += String(piece);
  return text;
}

for (const [scheme, options] of BOTH) {
  test(`${scheme}: a request is answered`, NOT_FOR_EVER, async (t) => {
    const listener = await listen(t, options);
    const socket = await connectTo(t, listener, options);
    socket.write('GET / HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n');
    assert.match(await readAll(socket), /^HTTP\/1\.1 200 [^]*answered$/);
  });

  test(
    `${scheme}: CONNECT is answered with 405 and a reason, and the connection ends`,
    NOT_FOR_EVER,
    async (t) => {
      const listener = await listen(t, options);
      const socket = await connectTo(t, listener, options);
      socket.write('CONNECT registry-1.docker.io:443 HTTP/1.1\r\nHost: registry-1.docker.io:443\r\n\r\n');
      const [head = '', body = ''] = (await readAll(socket)).split('\r\n\r\n');
      assert.match(head, /^HTTP\/1\.1 405 Method Not Allowed\r\n/);
      assert.match(head, /^Connection: close$/m);
      assert.match(head, /^Content-Type: application\/json$/m);
      assert.match(head, /^Allow: GET, HEAD$/m);
      const length = Number(/^Content-Length: (\d+)$/m.exec(head)?.[1]);
      assert.equal(Buffer.byteLength(body), length);
      const { errors } = JSON.parse(body) as { errors: { code: string; message: string }[] };
      assert.equal(errors[0]?.code, 'UNSUPPORTED');
      assert.match(errors[0]?.message ?? '', /not a proxy/);
    },
  );

  test(
    `${scheme}: drained, it finishes the running reply, and then no connection is left`,
    NOT_FOR_EVER,
    async (t) => {
      const running = Promise.withResolvers<ServerResponse>();
      const listener = await listen(t, options, (_request, response) => {
        response.flushHeaders();
        running.resolve(response);
      });
      const socket = await connectTo(t, listener, options);
      socket.write('GET / HTTP/1.1\r\nHost: m\r\n\r\n'); // keeps the connection
      const response = await running.promise;
      const port = portOf(listener);
      const drained = listener.drain(LONG_MS);
      await assert.rejects(once(connect(port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
      response.end('finished');
      assert.match(await readAll(socket), /finished/);
      await drained;
    },
  );

  test(`${scheme}: drained, it cuts what has not finished in time`, NOT_FOR_EVER, async (t) => {
    const asked = Promise.withResolvers<void>();
    const listener = await listen(t, options, (_request, response) => {
      response.flushHeaders();
      asked.resolve();
    });
    const socket = await connectTo(t, listener, options);
    socket.on('error', () => undefined);
    socket.write('GET / HTTP/1.1\r\nHost: m\r\n\r\n');
    await asked.promise;
    await Promise.all([listener.drain(50), once(socket.resume(), 'close')]);
  });

  test(
    `${scheme}: a client that keeps its connection after a refused CONNECT does not hold up the end`,
    NOT_FOR_EVER,
    async (t) => {
      const listener = await listen(t, options);
      const socket = connect({ port: portOf(listener), host: '127.0.0.1', allowHalfOpen: true });
      cleanUp(t, () => socket.destroy());
      socket.on('error', () => undefined);
      const asking =
        options.tls === undefined
          ? socket
          : connectTls({ socket, ca: CERTIFICATE.cert, servername: 'mirror.test' });
      asking.on('error', () => undefined);
      asking.write('CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io:443\r\n\r\n');
      await once(asking, 'data');
      await listener.drain(LONG_MS);
    },
  );
}

test(
  'https: a client that does not finish its handshake does not hold up the end',
  NOT_FOR_EVER,
  async (t) => {
    const listener = await listen(t, { tls: CERTIFICATE });
    const socket = connect(portOf(listener), '127.0.0.1');
    cleanUp(t, () => socket.destroy());
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    await Promise.all([listener.drain(50), once(socket.resume(), 'close')]);
  },
);

test('https: a client that speaks plain HTTP gets no reply, and others go on', NOT_FOR_EVER, async (t) => {
  const options = { tls: CERTIFICATE };
  const listener = await listen(t, options);
  const plain = connect(portOf(listener), '127.0.0.1');
  cleanUp(t, () => plain.destroy());
  plain.write('GET / HTTP/1.1\r\nHost: m\r\n\r\n');
  plain.on('error', () => undefined);
  plain.resume();
  await once(plain, 'close');
  const socket = await connectTo(t, listener, options);
  socket.write('GET / HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n');
  assert.match(await readAll(socket), /answered/);
});

test('wrong TLS options are an error at the start', async (t) => {
  await assert.rejects(listen(t, { tls: { cert: 'none', key: 'none' } }));
});
