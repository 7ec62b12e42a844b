import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import { type Digest, digestOf } from '../../../../src/oci/digest.ts';
import { type AssessmentSettings, assess } from '../../../../src/policy/parts/scan/report/assessment.ts';
import { readHarborReport } from '../../../../src/policy/parts/scan/report/harbor-report.ts';
import { readReport } from '../../../../src/policy/parts/scan/report/read-report.ts';
import { ReportError } from '../../../../src/policy/parts/scan/report/scan-report.ts';
import { readTrivyReport } from '../../../../src/policy/parts/scan/report/trivy-report.ts';

const DIGEST = digestOf(Buffer.from('image'));
const NAME = `127.0.0.1:5000/quarantine@${DIGEST}`;
const NOW = Date.UTC(2026, 0, 1);

const VULNERABILITY = {
  VulnerabilityID: 'CVE-2024-9999',
  PkgName: 'openssl',
  InstalledVersion: '3.3.0-r0',
  FixedVersion: '3.3.1-r0',
  Severity: 'CRITICAL',
};

const SETTINGS: AssessmentSettings = {
  ...{ failOn: 'high', ignoreUnfixed: false, secrets: false, misconfigurations: false, except: [] },
};

function trivy(changes: Record<string, unknown> = {}): Buffer {
  const report = {
    ...{ SchemaVersion: 2, ArtifactName: NAME, ArtifactType: 'container_image' },
    Metadata: { OS: { Family: 'alpine', Name: '3.20' }, RepoDigests: [NAME] },
    ...changes,
  };
  return Buffer.from(JSON.stringify(report));
}

function assessed(results: unknown, settings: Partial<AssessmentSettings> = {}, now = NOW) {
  const report = readTrivyReport(trivy({ Results: results }), NAME);
  return assess(report, { ...SETTINGS, ...settings }, now);
}

function kind(results: unknown, settings: Partial<AssessmentSettings> = {}): string {
  return assessed(results, settings).kind;
}

test('failOn means this severity and everything above it', () => {
  for (const [severity, expected] of [
    ['LOW', 'clean'],
    ['MEDIUM', 'clean'],
    ['HIGH', 'found'],
    ['CRITICAL', 'found'],
  ] as const)
    assert.equal(kind([{ Vulnerabilities: [{ ...VULNERABILITY, Severity: severity }] }]), expected, severity);
  assert.equal(
    kind([{ Vulnerabilities: [{ ...VULNERABILITY, Severity: 'LOW' }] }], { failOn: 'low' }),
    'found',
  );
});

test('a severity that is not known is never taken for harmless, unless an exception names its finding', () => {
  for (const severity of ['UNKNOWN', 'SEVERE', '']) {
    const results = [{ Vulnerabilities: [{ ...VULNERABILITY, Severity: severity }] }];
    assert.equal(kind(results), 'unrated', severity);
    assert.equal(kind(results, { except: [{ id: 'CVE-2024-9999', until: NOW + 1 }] }), 'clean');
  }
  const both = [{ Vulnerabilities: [{ ...VULNERABILITY, Severity: 'UNKNOWN' }, VULNERABILITY] }];
  assert.equal(kind(both), 'found', 'what is known to be bad comes first');
});

test('with ignoreUnfixed, a vulnerability that is fixed in no version counts for nothing', () => {
  const { FixedVersion: _, ...unfixed } = VULNERABILITY;
  for (const entry of [unfixed, { ...unfixed, FixedVersion: '' }]) {
    const results = [{ Vulnerabilities: [entry] }];
    assert.equal(kind(results), 'found');
    assert.equal(kind(results, { ignoreUnfixed: true }), 'clean');
  }
  assert.equal(kind([{ Vulnerabilities: [VULNERABILITY] }], { ignoreUnfixed: true }), 'found');
});

test('secrets and misconfigurations fail if the policy says so, checks that passed never', () => {
  const secrets = [{ Secrets: [{ RuleID: 'aws-access-key-id', Severity: 'CRITICAL' }] }];
  assert.equal(kind(secrets), 'clean');
  assert.equal(kind(secrets, { secrets: true }), 'found');
  const checks = (Status: string) => [{ Misconfigurations: [{ ID: 'DS-0002', Severity: 'HIGH', Status }] }];
  assert.equal(kind(checks('FAIL')), 'clean');
  assert.equal(kind(checks('FAIL'), { misconfigurations: true }), 'found');
  assert.equal(kind(checks('PASS'), { misconfigurations: true }), 'clean');
});

test('an exception holds up to its end, and so does what it lets in', () => {
  const results = [{ Vulnerabilities: [VULNERABILITY] }];
  const except = [
    { id: 'CVE-2024-9999', until: NOW + 1_000 },
    { id: 'CVE-2024-9999', until: NOW + 5_000 },
    { id: 'CVE-1999-0001', until: NOW + 10 },
  ];
  assert.deepEqual(assessed(results, { except }), { kind: 'clean', until: NOW + 5_000 });
  assert.equal(assessed(results, { except }, NOW + 5_000).kind, 'found');
  assert.equal(
    assessed([], { except }).until,
    Number.POSITIVE_INFINITY,
    'one that did not matter ends nothing',
  );
});

test('no operating system and no package is nothing to scan, and never clean', () => {
  const nothing = (changes: Record<string, unknown>) =>
    assess(readTrivyReport(trivy(changes), NAME), SETTINGS, NOW).kind;
  const Metadata = { RepoDigests: [NAME] };
  assert.equal(nothing({ Metadata }), 'nothing');
  assert.equal(nothing({ Metadata: { ...Metadata, OS: { Family: '' } } }), 'nothing');
  assert.equal(nothing({ Metadata, Results: [{ Class: 'secret', Packages: null }] }), 'nothing');
  assert.equal(nothing({ Metadata, Results: [{ Packages: [{ Name: 'lodash' }] }] }), 'clean');
  assert.equal(nothing({}), 'clean');
});

test('a report for another digest, of another schema, or that cannot be read says nothing', () => {
  const other = NAME.replace(DIGEST, digestOf(Buffer.from('other')));
  for (const [why, bytes] of [
    ['another name', trivy({ ArtifactName: other })],
    ['another digest', trivy({ Metadata: { RepoDigests: [other] } })],
    ['no digest', trivy({ Metadata: {} })],
    ['another schema', trivy({ SchemaVersion: 3 })],
    ['a file system', trivy({ ArtifactType: 'filesystem' })],
    [
      'a finding without severity',
      trivy({ Results: [{ Vulnerabilities: [{ VulnerabilityID: 'X', PkgName: 'y' }] }] }),
    ],
    ['no object', Buffer.from('null')],
    ['half of it', trivy().subarray(0, 40)],
    ['nothing', Buffer.alloc(0)],
  ] as const)
    assert.throws(() => readTrivyReport(bytes, NAME), ReportError, why);
});

test('the message about a report quotes nothing of it', () => {
  const bytes = trivy({ Results: [{ Secrets: [{ RuleID: 5, Match: 'hunter2' }] }] });
  assert.throws(
    () => readTrivyReport(bytes, NAME),
    ({ message }: Error) => message === 'the report is not as it should be at Results.0.Secrets.0.RuleID',
  );
});

function harbor(changes: Record<string, unknown> = {}): Buffer {
  return Buffer.from(JSON.stringify({ artifact: { digest: DIGEST }, vulnerabilities: [], ...changes }));
}

test("Harbor's severities are read, negligible and none as below low", () => {
  const severity = (text: string): string => {
    const vulnerabilities = [
      { id: 'CVE-1', package: 'zlib', version: '1', fix_version: '2', severity: text },
    ];
    const report = readHarborReport(harbor({ vulnerabilities }), DIGEST);
    return assess(report, { ...SETTINGS, failOn: 'low' }, NOW).kind;
  };
  assert.deepEqual(['Negligible', 'None', 'Low', 'Critical', 'Unknown'].map(severity), [
    ...['clean', 'clean', 'found', 'found', 'unrated'],
  ]);
});

test("Harbor's report without a list of vulnerabilities, or for another digest, says nothing", () => {
  for (const [why, bytes] of [
    ['no list', harbor({ vulnerabilities: null })],
    ['no artifact', harbor({ artifact: undefined })],
    ['another digest', harbor({ artifact: { digest: `sha256:${'0'.repeat(64)}` as Digest } })],
  ] as const)
    assert.throws(() => readHarborReport(bytes, DIGEST), ReportError, why);
});

const never = new AbortController().signal;

function read(bytes: Buffer, signal = never) {
  return readReport({ from: 'trivy', bytes, expected: NAME }, systemClock, signal);
}

test('a long report is read, while others are served', async () => {
  const entry = { ...VULNERABILITY, Description: 'x'.repeat(2_000) };
  const long = trivy({ Results: [{ Vulnerabilities: Array.from({ length: 25_000 }, () => entry) }] });
  assert.ok(long.length > 48 * 1024 * 1024);
  const state = { turns: 0 };
  const timer = setInterval(() => {
    state.turns += 1;
  }, 1);
  assert.equal((await read(long)).findings.length, 25_000);
  clearInterval(timer);
  assert.ok(state.turns > 5);
});

test('a report that takes all memory, or is all findings, costs the mirror nothing', async () => {
  // Small things take far more memory than their text has bytes.
  const dense = Buffer.from(`{"Results":[${'[[]],'.repeat(12_000_000)}{}]}`);
  await assert.rejects(read(dense), /the report is too long/);
  const findings = Array.from({ length: 100_000 }, () => VULNERABILITY);
  await assert.rejects(read(trivy({ Results: [{ Vulnerabilities: findings }] })), /too many findings/);
});

test('the reading of a report ends with whoever asked for it', async () => {
  const abort = new AbortController();
  const reading = assert.rejects(read(trivy(), abort.signal), /nobody wants it/);
  abort.abort(new Error('nobody wants it'));
  await reading;
});

test('a name of any length takes a line of the answer, and what is wrong with a report is told', async () => {
  const PkgName = 'x'.repeat(10_000);
  const report = await read(trivy({ Results: [{ Vulnerabilities: [{ ...VULNERABILITY, PkgName }] }] }));
  assert.deepEqual(report, {
    recognised: true,
    findings: [
      {
        ...{ kind: 'vulnerability', id: 'CVE-2024-9999', severity: 'critical', package: 'x'.repeat(200) },
        ...{ version: '3.3.0-r0', fixedIn: '3.3.1-r0' },
      },
    ],
  });
  await assert.rejects(read(Buffer.from('{')), { name: 'ReportError', message: 'the report is not JSON' });
});
