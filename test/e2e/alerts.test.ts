/** The alerts by the real promtool: each one fires, does not fire just below its limit, and resolves. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { parse, stringify } from 'yaml';
import { missingPrograms, run } from '../helpers/real-processes.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('promtool');
const FILE = resolve(import.meta.dirname, '../../deploy/prometheus/alerts.yaml');

interface Rule {
  alert: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

const { groups } = parse(readFileSync(FILE, 'utf8')) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);

/** A gauge, or what a counter gains a minute. The third: just below the limit, so that the alert must not fire. */
type Series = ['gauge' | 'counter', selector: string, alarming: number, harmless: number];

interface Case {
  series: Series[];
  /** Of the alert, besides `job` and `instance`. */
  labels?: Record<string, string>;
  /** Minutes that are harmless, before. */
  before?: number;
  alarmingFor?: number;
  harmlessFor?: number;
}

const MIB = 1024 * 1024;
const DAYS = 24 * 60;
const requests = (labels: string) => `millpond_requests_total{${labels}}`;
const upstream = 'docker.io';

const CASES: Record<string, Case> = {
  MillpondDown: { series: [['gauge', 'up', 0, 1]] },
  MillpondNotReady: { series: [['gauge', 'millpond_ready', 0, 1]] },
  MillpondErrors: {
    series: [
      ['counter', requests('code="502",cache="none"'), 6, 4],
      ['counter', requests('code="200",cache="hit"'), 94, 96],
    ],
  },
  MillpondUpstreamDown: {
    labels: { upstream },
    series: [['gauge', 'millpond_upstream_up{upstream="docker.io"}', 0, 1]],
  },
  MillpondPullLimitNearlyUsed: {
    labels: { upstream },
    series: [
      ['gauge', 'millpond_upstream_ratelimit_remaining{upstream="docker.io"}', 9, 10],
      ['gauge', 'millpond_upstream_ratelimit_limit{upstream="docker.io"}', 100, 100],
    ],
  },
  MillpondCredentialsRefused: {
    labels: { upstream },
    series: [['counter', 'millpond_upstream_credentials_refused_total{upstream="docker.io"}', 1, 0]],
  },
  MillpondContentRejected: {
    labels: { upstream },
    harmlessFor: 120,
    series: [
      ['counter', 'millpond_content_rejected_total{upstream="docker.io",reason="digest-mismatch"}', 1, 0],
    ],
  },
  MillpondSealedRefusals: {
    series: [['counter', 'millpond_sealed_refusals_total{upstream="docker.io"}', 1, 0]],
  },
  MillpondHitRateCollapsed: {
    before: DAYS + 60,
    alarmingFor: 120,
    harmlessFor: 120,
    series: [
      ['counter', requests('cache="hit"'), 40, 100],
      ['counter', requests('cache="miss"'), 60, 0],
    ],
  },
  MillpondDiskTooSmall: {
    alarmingFor: 8 * 60,
    harmlessFor: 8 * 60,
    series: [
      ['counter', 'millpond_evictions_total', 1, 1],
      ['counter', 'millpond_eviction_idle_seconds_bucket{le="43200"}', 0.51, 0.49],
      ['counter', 'millpond_eviction_idle_seconds_bucket{le="86400"}', 0.51, 0.49],
      ['counter', 'millpond_eviction_idle_seconds_bucket{le="+Inf"}', 1, 1],
    ],
  },
  MillpondCachingOff: {
    series: [
      ['counter', requests('cache="bypass"'), 11, 10],
      ['counter', requests('cache="hit"'), 89, 90],
    ],
  },
  MillpondDiskNearlyFull: {
    series: [
      ['gauge', 'millpond_disk_free_bytes', MIB - 1, MIB],
      ['gauge', 'millpond_disk_keep_free_bytes', MIB, MIB],
    ],
  },
  MillpondStorageFaults: {
    labels: { operation: 'write', code: 'EIO' },
    series: [
      ['counter', 'millpond_storage_errors_total{operation="write",code="EIO"}', 1, 0],
      // What does not fit is no fault.
      ['counter', 'millpond_storage_errors_total{operation="reserve",code="ENOSPC"}', 1, 1],
    ],
  },
  MillpondReloadFailed: { series: [['gauge', 'millpond_config_last_reload_successful', 0, 1]] },
  MillpondWarmFailed: { series: [['gauge', 'millpond_warm_failed_images', 1, 0]] },
  MillpondLoginFailures: {
    series: [
      ['counter', 'millpond_access_decisions_total{identity_kind="anonymous",decision="throttled"}', 1, 0],
      // Each client begins without credentials.
      [
        'counter',
        'millpond_access_decisions_total{identity_kind="anonymous",decision="unauthorized"}',
        100,
        100,
      ],
    ],
  },
  MillpondEventLoopLate: {
    series: [
      ['gauge', 'nodejs_eventloop_lag_p99_seconds', 0.26, 0.25],
      ['gauge', 'millpond_build_info', 1, 1],
    ],
  },
  MillpondCertificateEnds: {
    labels: { certificate: 'server' },
    // Time begins at 0 there; an hour passes before each look.
    series: [
      [
        'gauge',
        'millpond_certificate_expiry_timestamp_seconds{certificate="server"}',
        7 * 86_400,
        8 * 86_400,
      ],
    ],
  },
  MillpondFleetEngineDown: {
    labels: { engine: 'objects' },
    series: [['gauge', 'millpond_fleet_up{engine="objects"}', 0, 1]],
  },
};

/** What is too little to judge by: the same shares of fewer than 20 requests in the window. */
const TOO_FEW: Record<string, number> = {
  MillpondErrors: 0.019,
  MillpondHitRateCollapsed: 0.003,
  MillpondDiskTooSmall: 0.05,
  MillpondCachingOff: 0.012,
};

type Phase = { minutes: number; isAlarming: boolean };

function samples([kind, selector, alarming, harmless]: Series, phases: readonly Phase[], times: number) {
  let [value, values] = [0, ''];
  for (const { minutes, isAlarming } of phases) {
    const step = isAlarming ? alarming : harmless;
    for (let minute = 0; minute < minutes; minute += 1) {
      value = kind === 'gauge' ? step : value + step * times;
      values += `${value} `;
    }
  }
  const own = 'job="millpond",instance="a:5001"';
  const [name = '', labels = ''] = selector.replace('}', '').split('{');
  return { series: `${name}{${own}${labels === '' ? '' : `,${labels}`}}`, values: values.trim() };
}

/** What promtool is to find: after `phases` the alert fires, or nothing of its name does. */
function expectation({ alert, labels, annotations }: Rule, own: Record<string, string>, fires: boolean) {
  const exp_labels: Record<string, string> = { job: 'millpond', instance: 'a:5001', ...own };
  const exp_annotations = Object.fromEntries(
    Object.entries(annotations).map(([name, text]) => [
      name,
      text.replace(/\{\{ \$labels\.(\w+) \}\}/g, (_, label: string) => exp_labels[label] ?? ''),
    ]),
  );
  const exp_alerts = fires ? [{ exp_labels: { ...exp_labels, ...labels }, exp_annotations }] : [];
  return { alertname: alert, exp_alerts };
}

for (const rule of rules) {
  test(`${rule.alert}: fires, does not fire just below, and resolves`, { skip }, async (t) => {
    const found = CASES[rule.alert];
    assert.ok(found, 'each alert has its case');
    const { series, labels = {}, before = 0, alarmingFor = 60, harmlessFor = 60 } = found;
    const harmlessBefore = { minutes: before, isAlarming: false };
    const alarm = { minutes: alarmingFor, isAlarming: true };
    const rest = { minutes: harmlessFor, isAlarming: false };
    const story = (phases: Phase[], fires: boolean, times = 1) => ({
      interval: '1m',
      input_series: series.map((one) => samples(one, phases, times)),
      alert_rule_test: [
        {
          eval_time: `${phases.reduce((sum, { minutes }) => sum + minutes, -1)}m`,
          ...expectation(rule, labels, fires),
        },
      ],
    });
    const tests = [
      story([harmlessBefore, alarm], true),
      story([harmlessBefore, rest], false),
      story([harmlessBefore, alarm, rest], false),
    ];
    const few = TOO_FEW[rule.alert];
    if (few !== undefined) tests.push(story([harmlessBefore, alarm], false, few));
    const file = join(await tempDir(t), 'test.yaml');
    await writeFile(file, stringify({ rule_files: [FILE], evaluation_interval: '1m', tests }));
    await run('promtool', ['test', 'rules', file]);
  });
}
