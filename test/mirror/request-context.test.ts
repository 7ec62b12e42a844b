import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { errorReply, ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';

const LAYER = Buffer.from('layer');

test('the log lines of upstream requests have the id of the pull that caused them', async (t) => {
  const upstream = await ScriptedUpstream.start(t, { auth: {} });
  const digest = upstream.addContent(LAYER);
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url }, log: { level: 'debug' } });
  await mirror.get(`/v2/org/app/blobs/${digest}`);
  const before = mirror.log.length;
  const reply = await mirror.get(`/v2/org/other/blobs/${digestOf(Buffer.from('missing'))}`);
  assert.equal(reply.status, 404);
  await mirror.idle();

  const { errors } = JSON.parse(reply.body.toString()) as { errors: { detail: { requestId: string } }[] };
  const id = errors[0]?.detail.requestId;
  const asked = mirror.log.filter(({ msg, requestId }) => msg === 'upstream request' && requestId === id);
  assert.deepEqual(
    asked.map(({ kind, method, code }) => [kind, method, code]),
    [
      ['blob', 'GET', '401'],
      ['token', 'GET', '200'],
      ['blob', 'GET', '404'],
    ],
  );
  assert.equal(mirror.log.findIndex(({ requestId }) => requestId === id) >= before, true);
  const failed = mirror.log.find(({ msg }) => msg === 'fetch failed');
  assert.equal(failed?.['requestId'], id, 'the fetch that failed can be traced to the request');
});

test('the log line of an upstream outage names the request that met it', async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  upstream.script({}, (reply) => void Object.assign(reply, errorReply(429, 'TOOMANYREQUESTS')));
  const mirror = await startMirror(t, { upstreams: { 'quay.io': upstream.url } });
  const reply = await mirror.get('/v2/org/app/manifests/1');
  assert.equal(reply.status, 429);
  const line = mirror.log.find(({ msg }) => msg === 'request');
  const limited = mirror.log.find(
    ({ msg }) => msg === 'upstream rate limit: requests of this kind stop until it ends',
  );
  assert.ok(line?.['requestId']);
  assert.equal(limited?.['requestId'], line['requestId']);
});
