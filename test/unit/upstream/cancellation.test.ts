import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRepository } from '../../../src/oci/reference.ts';
import { ResilientUpstream } from '../../../src/upstream/limits/resilience.ts';
import { cleanUp } from '../../helpers/cleanup.ts';
import { CONTEXT } from '../../helpers/request-context.ts';
import { ScriptedUpstream } from '../../helpers/scripted-upstream.ts';
import { startClient } from '../../helpers/test-client.ts';

/** More than the failures that open the breaker. */
const CANCELLED = 10;

test('requests that the mirror itself aborts do not count as an outage of upstream', async (t) => {
  const registry = await ScriptedUpstream.start(t);
  const digest = registry.addContent(Buffer.from('layer'));
  const gate = Promise.withResolvers<void>();
  registry.script({ kind: 'blob' }, (reply) => void (reply.delay = gate.promise), { times: CANCELLED });
  const { client, context } = startClient(t, { url: registry.url, maxConnections: CANCELLED + 1 });
  const upstream = new ResilientUpstream('quay.io', [client], { ...context, random: () => 0.5 });
  cleanUp(t, () => gate.resolve());
  const repository = parseRepository('org/app') ?? assert.fail();

  for (let request = 0; request < CANCELLED; request += 1) {
    const abort = new AbortController();
    const cancelled = upstream.fetchBlob({ ...CONTEXT, signal: abort.signal }, repository, digest);
    await registry.waitFor(() => registry.requests.length > request);
    abort.abort(new Error('nobody wants it any more'));
    await assert.rejects(cancelled, /nobody wants it any more/);
  }
  assert.equal(registry.requests.length, CANCELLED, 'and none is repeated');

  const { body } = await upstream.fetchBlob(CONTEXT, repository, digest);
  assert.equal(Buffer.concat(await body.toArray()).toString(), 'layer');
});
