import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { OCI_ERRORS } from '../../src/oci/errors.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');

/** The rows of the first table after `heading`, with trimmed cells. */
function tableAfter(heading: string): string[][] {
  const rest = readme.slice(readme.indexOf(`\n${heading}\n`));
  const lines = rest.split('\n');
  const start = lines.findIndex((line) => line.startsWith('|---'));
  assert.ok(start > 0, `there is a table after ${heading}`);
  const end = lines.findIndex((line, at) => at > start && !line.startsWith('|'));
  return lines.slice(start + 1, end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

test('the README lists every metric with its type and labels, and no other', async () => {
  const metrics = new Metrics({ version: 'x', processMetrics: false });
  const declared = await metrics.registry.getMetricsAsJSON();
  const expected = declared.map(({ name, type }) => {
    const metric = metrics.registry.getSingleMetric(name) as unknown as { labelNames: string[] };
    return [name, String(type), metric.labelNames.join(', ')];
  });
  const listed = tableAfter('## Metrics').map(([name, type, labels]) => [name, type, labels]);
  assert.deepEqual(listed.toSorted(), expected.toSorted());
});

test('the README lists every error code with its status, and no other', () => {
  const expected = Object.entries(OCI_ERRORS).map(([code, { status }]) => [code, String(status)]);
  const listed = tableAfter('## Errors').map(([code, status]) => [code, (status ?? '').replace(/,.*/, '')]);
  assert.deepEqual(listed.toSorted(), expected.toSorted());
});

test('the commands in the README are scripts of the package', () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const named = [...readme.matchAll(/npm run (?:-s )?([\w:-]+)/g)].map((match) => match[1] ?? '');
  assert.ok(named.length > 2);
  for (const name of [...named, 'start', 'test']) assert.ok(scripts[name] !== undefined, name);
});
