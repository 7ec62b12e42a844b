import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from '../../../src/telemetry/metrics.ts';

test('every reply is counted once, however many came and however often somebody looks', async () => {
  const metrics = new Metrics({ version: 'test', processMetrics: false });
  const hit = { upstream: 'docker.io', kind: 'manifest', method: 'GET', cache: 'hit', code: 200 };
  for (let n = 0; n < 2500; n += 1) metrics.replies.add(hit, 10, 0.002, 0.001);
  metrics.replies.add({ ...hit, code: 304 }, 0, 4, 3);
  for (const _look of ['first', 'second']) {
    const text = await metrics.registry.metrics();
    for (const line of [
      'millpond_requests_total{upstream="docker.io",kind="manifest",method="GET",cache="hit",code="200"} 2500',
      'millpond_requests_total{upstream="docker.io",kind="manifest",method="GET",cache="hit",code="304"} 1',
      'millpond_response_bytes_total{upstream="docker.io",kind="manifest",cache="hit"} 25000',
      'millpond_request_duration_seconds_bucket{le="0.005",kind="manifest",cache="hit"} 2500',
      'millpond_request_duration_seconds_bucket{le="5",kind="manifest",cache="hit"} 2501',
      'millpond_first_byte_seconds_bucket{le="0.001",kind="manifest",cache="hit"} 2500',
      'millpond_first_byte_seconds_count{kind="manifest",cache="hit"} 2501',
    ]) {
      assert.ok(text.includes(`${line}\n`), line);
    }
  }
});

test('a metric that is read alone is as complete as all of them', async () => {
  for (const read of ['requests', 'responseBytes', 'requestDuration', 'firstByte'] as const) {
    const metrics = new Metrics({ version: 'test', processMetrics: false });
    const labels = { upstream: 'docker.io', kind: 'blob', method: 'GET', cache: 'miss', code: 200 };
    metrics.replies.add(labels, 10, 0.002, 0.001);
    assert.notEqual((await metrics[read].get()).values.length, 0, read);
  }
});
