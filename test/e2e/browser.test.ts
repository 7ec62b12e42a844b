/** A real browser shows a page of somebody else, on a machine that reaches the mirror: the page can do nothing there. */
import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { cleanUp } from '../helpers/cleanup.ts';
import { startRealMirror } from '../helpers/real-mirror.ts';
import { missingPrograms, startProcess } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('chromium');
const MANIFEST = '/v2/org/private/manifests/1';

interface Answer {
  url: string;
  /** What the page could read; `opaque` if the browser keeps the reply from it, `failed` if there was none. */
  seen: string;
}

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  upstream.addImage('org/private', '1', { layers: [5000] });
  const mirror = await startRealMirror(t, await tempDir(t), {
    upstreams: { 'docker.io': { url: upstream.url } },
    access: {
      rules: [{ who: 'anonymous', network: '127.0.0.0/8', pull: '*', operate: true, observe: true }],
    },
  });
  /**
   * Opens a page at `origin` that sends requests, and tells what it saw.
   *
   * The browser has a proxy, which answers `/` and `/answers` of every name itself, as the server of somebody else, and
   * passes everything else on to the port of that name on loopback: as if the name had been made to lead there meanwhile.
   */
  const browse = async (origin: string, requests: { url: string; method?: string; mode?: string }[]) => {
    const script = `
      const answers = [];
      for (const { url, method = 'GET', mode = 'cors' } of ${JSON.stringify(requests)}) {
        try {
          const reply = await fetch(url, { method, mode, credentials: 'include' });
          const text = reply.type === 'opaque' ? 'opaque' : reply.status + ' ' + (await reply.text()).slice(0, 300);
          answers.push({ url, seen: text });
        } catch { answers.push({ url, seen: 'failed' }); }
      }
      await fetch('/answers', { method: 'POST', body: JSON.stringify(answers) });`;
    const told = Promise.withResolvers<Answer[]>();
    const proxy = createServer((incoming, response) => {
      const { host, port, pathname } = new URL(incoming.url ?? '', 'http://nowhere');
      if (pathname === '/') {
        response.setHeader('content-type', 'text/html');
        response.end(`<!doctype html><script type="module">${script}</script>`);
      } else if (pathname === '/answers') {
        let body = '';
        incoming.on('data', (chunk) => (body += String(chunk)));
        incoming.on('end', () => {
          told.resolve(JSON.parse(body) as Answer[]);
          response.end();
        });
      } else {
        const { method, headers } = incoming;
        const forwarded = request(
          { host: '127.0.0.1', port, path: pathname, method, headers: { ...headers, host } },
          (reply) => {
            response.writeHead(reply.statusCode ?? 502, reply.headers);
            reply.pipe(response);
          },
        );
        forwarded.on('error', () => response.destroy());
        incoming.pipe(forwarded);
      }
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    cleanUp(t, () => new Promise<void>((resolve) => void proxy.close(() => resolve())));
    const { port } = proxy.address() as AddressInfo;
    const browser = startProcess(t, 'chromium', [
      ...['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
      `--user-data-dir=${await tempDir(t)}`,
      `--proxy-server=http://127.0.0.1:${port}`,
      `${origin}/`,
    ]);
    const answers = await told.promise;
    await browser.stop();
    proxy.closeAllConnections();
    return answers;
  };
  return { mirror, upstream, browse };
}

test('a page of another site reads and changes nothing on either listener', { skip }, async (t) => {
  const { mirror, upstream, browse } = await setUp(t);
  const [registry, operations] = [
    `http://127.0.0.1:${mirror.port}`,
    `http://127.0.0.1:${mirror.operationsPort}`,
  ];
  const answers = await browse('http://evil.test', [
    { url: `${registry}${MANIFEST}` },
    { url: `${registry}${MANIFEST}`, mode: 'no-cors' },
    { url: `${operations}/metrics` },
    { url: `${operations}/api/status`, mode: 'no-cors' },
    { url: `${operations}/api/seal`, method: 'POST', mode: 'no-cors' },
  ]);
  for (const { url, seen } of answers) assert.ok(seen === 'failed' || seen === 'opaque', `${url}: ${seen}`);
  assert.equal(upstream.totalConnections, 0, 'a page has no network identity, so nothing was fetched for it');
  const status = (await (await fetch(`${operations}/api/status`)).json()) as { sealed: boolean };
  assert.equal(status.sealed, false);
});

test('DNS rebinding: a page whose name is made to lead to the mirror has neither the operations side nor a network', {
  skip,
}, async (t) => {
  const { mirror, upstream, browse } = await setUp(t);
  for (const port of [mirror.operationsPort, mirror.port]) {
    const origin = `http://rebound.test:${port}`;
    // The page comes from a server of somebody else, by the name and port that its requests then go to the mirror by.
    const answers = await browse(origin, [
      { url: `${origin}/api/status` },
      { url: `${origin}/api/seal`, method: 'POST' },
      { url: `${origin}${MANIFEST}` },
    ]);
    assert.equal(answers.length, 3);
    for (const { url, seen } of answers) assert.match(seen, /^(421|401|403|404|405) /, `${url}: ${seen}`);
  }
  assert.equal(upstream.totalConnections, 0);
  const direct = await fetch(`http://127.0.0.1:${mirror.operationsPort}/api/status`);
  assert.equal(((await direct.json()) as { sealed: boolean }).sealed, false);
});
