/** The alerts and the dashboard name only metrics that there are, and lead to a section that there is. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { Metrics } from '../../src/telemetry/metrics.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const read = (name: string) => readFileSync(join(ROOT, name), 'utf8');
const alertsText = read('deploy/prometheus/alerts.yaml');
const dashboardText = read('deploy/grafana/millpond.json');

interface Rule {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity?: string };
  annotations: { summary?: string; runbook_url?: string };
}

interface Panel {
  id: number;
  type: string;
  title: string;
  datasource?: { uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string; datasource: { uid: string } }[];
}

const { groups } = parse(alertsText) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);
const dashboard = JSON.parse(dashboardText) as {
  panels: Panel[];
  templating: { list: { name: string }[] };
};

test('each alert waits, has a severity, and leads to a section of docs/alerts.md', () => {
  const sections = [...read('docs/alerts.md').matchAll(/^## (.+)$/gm)].map(([, title = '']) =>
    title.toLowerCase().replaceAll(' ', '-'),
  );
  assert.ok(rules.length > 15);
  for (const { alert, labels, annotations, for: wait } of rules) {
    assert.match(wait ?? '', /^\d+[mh]$/, alert);
    assert.match(labels.severity ?? '', /^(?:critical|warning)$/, alert);
    assert.ok((annotations.summary ?? '').length > 0, alert);
    const [page, anchor = ''] = (annotations.runbook_url ?? '').split('#');
    assert.equal(page, 'docs/alerts.md');
    assert.equal(anchor, alert.toLowerCase());
    assert.ok(sections.includes(anchor), alert);
  }
  assert.equal(sections.length, rules.length, 'no section is left over');
});

test('alerts and dashboard name no metric that there is not', async () => {
  const metrics = new Metrics({ version: 'x', processMetrics: true });
  const known = (await metrics.registry.getMetricsAsJSON()).flatMap(({ name, type }) =>
    String(type) === 'histogram' ? ['_bucket', '_sum', '_count'].map((end) => name + end) : [name],
  );
  const named = (alertsText + dashboardText).matchAll(/\b(?:millpond|nodejs|process)_\w+/g);
  const unknown = [...named].map(([name]) => name).filter((name) => !known.includes(name));
  assert.deepEqual([...new Set(unknown)], []);
});

test('the dashboard asks the five questions in turn, and its panels lie beside each other', () => {
  const rows = dashboard.panels.filter(({ type }) => type === 'row').map(({ title }) => title);
  assert.deepEqual(rows, [
    'Are clients served?',
    'Do upstreams answer, and what is left of limits?',
    'What does it save?',
    'Does the disk suffice?',
    'Is the process well?',
  ]);
  assert.deepEqual(
    dashboard.templating.list.map(({ name }) => name),
    ['datasource', 'job', 'instance', 'upstream'],
  );
  assert.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length);
  const cells = new Set<string>();
  for (const {
    title,
    gridPos: { x, y, w, h },
  } of dashboard.panels) {
    assert.ok(x + w <= 24, title);
    for (let column = x; column < x + w; column += 1)
      for (let line = y; line < y + h; line += 1) {
        assert.ok(!cells.has(`${column} ${line}`), `${title} lies over another panel`);
        cells.add(`${column} ${line}`);
      }
  }
  for (const { type, targets = [], datasource, title } of dashboard.panels) {
    if (type === 'row') continue;
    assert.ok(targets.length > 0, title);
    for (const one of [datasource, ...targets.map((target) => target.datasource)])
      assert.equal(one?.uid, '${datasource}', title);
  }
});
