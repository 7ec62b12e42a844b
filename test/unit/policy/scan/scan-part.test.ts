/** What a policy makes of a scan, whichever scanner did it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OCI_INDEX, OCI_MANIFEST } from '../../../../src/oci/manifest.ts';
import type { Repository } from '../../../../src/oci/reference.ts';
import type { Finding, Subject } from '../../../../src/policy/parts/part.ts';
import type { ScanFinding } from '../../../../src/policy/parts/scan/report/scan-report.ts';
import { ScanPart } from '../../../../src/policy/parts/scan/scan-part.ts';
import type { ScanOutcome } from '../../../../src/policy/parts/scan/scanner/scanner.ts';
import type { ScanSettings } from '../../../../src/policy/parts/scan/scanner/settings.ts';
import { FakeClock } from '../../../helpers/fake-clock.ts';
import { buildImage } from '../../../helpers/images.ts';
import { RememberedImages } from '../../../helpers/remembered-images.ts';
import { manifestOf, scanSettings, silent, subjectOf, TestContent } from '../../../helpers/scans.ts';

const IMAGE = buildImage({});
const SUBJECT = subjectOf(IMAGE.top);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const CRITICAL: ScanFinding = {
  ...{ kind: 'vulnerability', id: 'CVE-2024-9999', severity: 'critical', package: 'openssl' },
  ...{ version: '3.3.0', fixedIn: '3.3.1' },
};
const UNAVAILABLE: ScanOutcome = { kind: 'unavailable', reason: 'connect ECONNREFUSED 10.0.0.7:4954' };
const FAILED: ScanOutcome = { kind: 'failed', reason: 'it took too long' };
const CLEAN = found();
const NOTHING: ScanOutcome = { kind: 'report', report: { findings: [], recognised: false } };

function found(...findings: ScanFinding[]): ScanOutcome {
  return { kind: 'report', report: { findings, recognised: true } };
}

function setUp(settings: Partial<ScanSettings> = {}) {
  const clock = new FakeClock();
  const counts: string[] = [];
  const state = { outcome: CLEAN, scans: 0 };
  const scanner = {
    scan: (): Promise<ScanOutcome> => {
      state.scans += 1;
      return Promise.resolve(state.outcome);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const part = new ScanPart(scanSettings({ directory: '/nowhere', ...settings }), {
    ...{ clock, logger: silent, scanner, clean: new RememberedImages() },
    contentOf: () => new TestContent(IMAGE),
    count: (result) => counts.push(result),
  });
  const judge = (subject: Subject = SUBJECT): Promise<Finding> =>
    part.judge(subject, { signal: new AbortController().signal });
  /** With how long the finding holds, in milliseconds. */
  const judged = async (outcome: ScanOutcome): Promise<[allowed: boolean, holds: number]> => {
    state.outcome = outcome;
    const finding = (await judge()) as Finding & { until: number };
    return [finding.allowed, finding.until - clock.now()];
  };
  return { clock, counts, state, judge, judged };
}

test('a clean image is let in for as long as rescan says', async () => {
  const { judged, counts } = setUp({ rescan: 6 * HOUR });
  assert.deepEqual(await judged(CLEAN), [true, 6 * HOUR]);
  assert.deepEqual(counts, ['clean']);
});

test('a refusal says what was found, what to do, and the same for machines', async () => {
  const { state, judge } = setUp({ failOn: 'high' });
  const high: ScanFinding = { kind: 'secret', id: 'aws\u001b[2J-key', severity: 'high' };
  state.outcome = found(high, CRITICAL, { ...high, kind: 'vulnerability', severity: 'medium' });
  const scanned = setUp({ failOn: 'high', secrets: true });
  scanned.state.outcome = state.outcome;
  const finding = await scanned.judge();
  assert.ok(!finding.allowed);
  assert.equal(
    finding.reason,
    'its scan found CVE-2024-9999 (critical, openssl 3.3.0, fixed in 3.3.1), and 1 more of high or above',
  );
  assert.match(finding.advice, /use a version of the image in which that is fixed/);
  assert.deepEqual(finding.detail, {
    ...{ denied: 'scan', scan: 'found', failOn: 'high', count: 2 },
    findings: [{ kind: 'secret', id: 'aws [2J-key', severity: 'high' }, { ...CRITICAL }],
  });
  assert.equal((await judge()).allowed, false);
});

test('a refused image is not scanned again before rescan has passed, and is let in when it is fixed then', async () => {
  const { clock, state, judge, judged } = setUp({ rescan: DAY });
  assert.deepEqual(await judged(found(CRITICAL)), [false, DAY]);
  state.outcome = CLEAN;
  clock.advance(DAY - 1);
  assert.equal((await judge()).allowed, false);
  assert.equal(state.scans, 1);
  clock.advance(1);
  assert.equal((await judge()).allowed, true);
  assert.equal(state.scans, 2);
});

test('what is let in by an exception is decided again when that ends', async () => {
  const { clock, state, judged, judge } = setUp({
    except: [{ id: CRITICAL.id, until: new FakeClock().now() + HOUR }],
    onNewFinding: 'report',
  });
  assert.deepEqual(await judged(found(CRITICAL)), [true, HOUR]);
  clock.advance(HOUR);
  assert.equal((await judge()).allowed, false, 'and a known finding is not a new one');
  assert.equal(state.scans, 2);
});

test('without a scanner ifUnavailable decides, for 5 minutes at most, and its address is no business of a client', async () => {
  const open = setUp({ ifUnavailable: 'allow' });
  assert.deepEqual(await open.judged(UNAVAILABLE), [true, 5 * MINUTE]);
  assert.deepEqual(open.counts, ['unavailable']);
  assert.deepEqual(await setUp({ ifUnavailable: 'allow', rescan: MINUTE }).judged(UNAVAILABLE), [
    true,
    MINUTE,
  ]);
  const closed = setUp({ ifUnavailable: 'deny', ifFailed: 'allow', ifNothingFound: 'allow' });
  assert.deepEqual(await closed.judged(UNAVAILABLE), [false, 30_000]);
  assert.ok(!JSON.stringify(await closed.judge()).includes('10.0.0.7'));
  closed.clock.advance(30_000);
  assert.equal((await closed.judged(CLEAN))[0], true, 'and it is asked again soon');
});

test('an image on which the scanner fails is not let in by ifUnavailable, nor when the scanner is away afterwards', async () => {
  const { clock, judged, state, counts } = setUp({ ifUnavailable: 'allow', ifFailed: 'deny' });
  assert.deepEqual(await judged(FAILED), [false, 5 * MINUTE]);
  clock.advance(5 * MINUTE);
  assert.equal((await judged(UNAVAILABLE))[0], false, 'it may have crashed the scanner');
  clock.advance(5 * MINUTE);
  assert.equal((await judged(CLEAN))[0], true);
  assert.equal((await judged(UNAVAILABLE))[0], true, 'the scanner has managed it since');
  assert.equal(state.scans, 4);
  assert.deepEqual(counts, ['failed', 'failed', 'clean', 'unavailable']);
});

test('ifFailed: allow lets in for an hour, and for 5 minutes while the scanner is away', async () => {
  const { judged } = setUp({ ifFailed: 'allow', ifUnavailable: 'deny' });
  assert.deepEqual(await judged(FAILED), [true, HOUR]);
  assert.deepEqual(await judged(UNAVAILABLE), [true, 5 * MINUTE]);
});

test('a severity that is not known is a failure, and names its finding', async () => {
  const { state, judge, counts } = setUp();
  state.outcome = found({ ...CRITICAL, severity: undefined });
  const finding = await judge();
  assert.ok(!finding.allowed);
  assert.match(finding.reason, /the severity of CVE-2024-9999 is not known/);
  assert.deepEqual(counts, ['failed']);
});

test('nothing to scan is decided by ifNothingFound, and is not counted as clean', async () => {
  const open = setUp({ ifNothingFound: 'allow', onNewFinding: 'report', rescan: DAY });
  assert.deepEqual(await open.judged(NOTHING), [true, DAY]);
  assert.deepEqual(open.counts, ['nothing']);
  assert.equal((await open.judged(found(CRITICAL)))[0], false, 'no finding is a new one after it');
  assert.deepEqual(await setUp({ ifNothingFound: 'deny', rescan: DAY }).judged(NOTHING), [false, DAY]);
});

test('a new finding denies an image that was clean, or is only reported, as onNewFinding says', async () => {
  const deny = setUp({ onNewFinding: 'deny' });
  await deny.judged(CLEAN);
  assert.equal((await deny.judged(found(CRITICAL)))[0], false);
  const report = setUp({ onNewFinding: 'report', rescan: HOUR });
  await report.judged(CLEAN);
  assert.deepEqual(await report.judged(found(CRITICAL)), [true, HOUR]);
  assert.deepEqual(report.counts, ['clean', 'reported']);
  const other = { ...SUBJECT, repository: 'org/other' as Repository };
  assert.equal(
    (await report.judge(other)).allowed,
    false,
    "another repository's result speaks for itself only",
  );
  const never = setUp({ onNewFinding: 'report' });
  await never.judged(UNAVAILABLE);
  assert.equal((await never.judged(found(CRITICAL)))[0], false);
});

test('an index is let through as a list, without a scan', async () => {
  const { top } = buildImage({ platforms: ['amd64', 'arm64'] });
  const { judge, state } = setUp();
  assert.deepEqual(await judge(subjectOf(top)), { allowed: true });
  assert.equal(state.scans, 0);
});

const DESCRIPTOR = { digest: `sha256:${'a'.repeat(64)}`, size: 10 };
const CHART = { mediaType: 'application/vnd.cncf.helm.config.v1+json', ...DESCRIPTOR };
const LAYER = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', ...DESCRIPTOR };

test('what has the config of a chart is nothing to scan', async () => {
  const layers = [{ mediaType: 'application/vnd.cncf.helm.chart.content.v1.tar+gzip', ...DESCRIPTOR }];
  const chart = manifestOf(OCI_MANIFEST, { config: CHART, layers });
  const { judge, state, counts } = setUp({ ifNothingFound: 'deny' });
  assert.equal((await judge(subjectOf(chart))).allowed, false);
  assert.equal(state.scans, 0);
  assert.deepEqual(counts, ['nothing']);
});

test('what somebody could run is scanned, whatever its config says', async () => {
  for (const [what, content] of [
    ['layers of an image', { config: CHART, layers: [LAYER] }],
    [
      'an empty config',
      { config: { ...CHART, mediaType: 'application/vnd.oci.empty.v1+json' }, layers: [LAYER] },
    ],
    ['a config of no type', { config: DESCRIPTOR, layers: [{ ...LAYER, mediaType: 'x/y' }] }],
    ['a config of any type', { config: { ...CHART, mediaType: 'application/octet-stream' }, layers: [] }],
    [
      "Docker's config",
      { config: { ...CHART, mediaType: 'application/vnd.docker.container.image.v1+json' } },
    ],
    ['no config', { layers: [{ ...LAYER, mediaType: 'x/y' }] }],
  ] as const) {
    const { judge, state } = setUp();
    await judge(subjectOf(manifestOf(OCI_MANIFEST, content)));
    assert.equal(state.scans, 1, what);
  }
});

test('a manifest that is an index and an image at once has failed', async () => {
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', ...DESCRIPTOR };
  const manifests = [{ mediaType: OCI_MANIFEST, ...DESCRIPTOR }];
  const both = { config, layers: [LAYER], manifests };
  const image = manifestOf(OCI_MANIFEST, { config, layers: [LAYER] });
  for (const subject of [
    subjectOf(manifestOf(OCI_INDEX, both)),
    subjectOf(manifestOf(OCI_MANIFEST, both)),
    { ...subjectOf(image), mediaType: OCI_INDEX },
  ]) {
    const { judge, state, counts } = setUp();
    assert.equal((await judge(subject)).allowed, false);
    assert.deepEqual([state.scans, counts], [0, ['failed']]);
  }
});

test('a scan that is broken off, or whose bytes do not come, is no decision', async () => {
  const { judge, state } = setUp({ ifFailed: 'allow', ifUnavailable: 'allow' });
  Object.defineProperty(state, 'outcome', {
    get: () => {
      throw new Error('upstream has gone');
    },
  });
  await assert.rejects(judge, /upstream has gone/);
});
