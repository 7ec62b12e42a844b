import type { Mutation } from '../mutation.ts';

const SCAN = 'src/policy/parts/scan';
const UNIT = 'test/unit/policy/scan';
const ASSESSMENT = `${SCAN}/report/assessment.ts`;
const TRIVY_REPORT = `${SCAN}/report/trivy-report.ts`;
const PART = `${SCAN}/scan-part.ts`;
const ADMISSION = `${SCAN}/quarantine/admission.ts`;
const ROUTE = `${SCAN}/quarantine/route.ts`;
const CHILD = `${SCAN}/child/child.ts`;
const RUNS = `${SCAN}/trivy/runs.ts`;
const TRIVY = `${SCAN}/trivy/trivy-scanner.ts`;
const ADAPTER = `${SCAN}/adapter/adapter-scanner.ts`;
const API = `${SCAN}/adapter/adapter-api.ts`;

const report = [`${UNIT}/report.test.ts`];
const part = [`${UNIT}/scan-part.test.ts`];
const limits = [`${UNIT}/limits.test.ts`];
const route = [`${UNIT}/quarantine-route.test.ts`];
const trivy = [`${UNIT}/trivy-scanner.test.ts`];
const adapter = [`${UNIT}/adapter-scanner.test.ts`];

export const policyScan: readonly Mutation[] = [
  {
    file: ASSESSMENT,
    replace: "if (unrated.length > 0) return { kind: 'unrated', findings: unrated, until };",
    by: '',
    promise: 'a severity that is not known is never taken for harmless',
    tests: report,
  },
  {
    file: ASSESSMENT,
    replace: 'return fixedIn !== undefined || !settings.ignoreUnfixed;',
    by: 'return fixedIn !== undefined;',
    promise: 'a vulnerability without a fix counts, unless the policy says otherwise',
    tests: report,
  },
  {
    file: ASSESSMENT,
    replace: 'if (now < until) ends.set',
    by: 'ends.set',
    promise: 'an exception ends',
    tests: report,
  },
  {
    file: ASSESSMENT,
    replace: "return { kind: report.recognised ? 'clean' : 'nothing', until };",
    by: "return { kind: 'clean', until };",
    promise: 'nothing to scan is never counted as clean',
    tests: report,
  },
  {
    file: `${SCAN}/report/scan-report.ts`,
    replace: 'return SEVERITIES.indexOf(severity) >= SEVERITIES.indexOf(limit);',
    by: 'return severity === limit;',
    promise: 'failOn means everything above it, too',
    tests: report,
  },
  {
    file: TRIVY_REPORT,
    replace: 'if (ArtifactName !== expected || !Metadata.RepoDigests.includes(expected))',
    by: 'if (ArtifactName !== expected)',
    promise: 'a report for another digest says nothing',
    tests: report,
  },
  {
    file: TRIVY_REPORT,
    replace: 'SchemaVersion: z.literal(2),',
    by: '',
    promise: 'a report of another schema says nothing',
    tests: report,
  },
  {
    file: `${SCAN}/report/harbor-report.ts`,
    replace: "if (artifact.digest !== expected) throw new ReportError('the report is about another image');",
    by: '',
    promise: "an adapter's report for another digest says nothing",
    tests: report,
  },
  {
    file: PART,
    replace: 'return this.#failedOn.has(subject.digest)',
    by: 'return false',
    promise: 'an image that may have crashed the scanner is not let in by ifUnavailable',
    tests: part,
  },
  {
    file: PART,
    replace: 'return { unavailable: ifUnavailable, failed: ifFailed, nothing: ifNothingFound }[kind];',
    by: 'return { unavailable: ifUnavailable, failed: ifUnavailable, nothing: ifNothingFound }[kind];',
    promise: 'a failure on an image is not decided by ifUnavailable',
    tests: part,
  },
  {
    file: PART,
    replace: 'return allowed ? UNAVAILABLE_HOLDS_MS : UNAVAILABLE_REFUSED_MS;',
    by: 'return Number.POSITIVE_INFINITY;',
    promise: "an allow without a scanner does not outlive the scanner's return",
    tests: part,
  },
  {
    file: PART,
    replace: 'const until = Math.min(now + this.#settings.rescan, assessed.until);',
    by: 'const until = now + this.#settings.rescan;',
    promise: 'what an exception lets in is decided again when it ends',
    tests: part,
  },
  {
    file: PART,
    replace: 'else this.#refused.set(key, finding);',
    by: '',
    promise: 'a refused image is not scanned again before rescan has passed',
    tests: part,
  },
  {
    file: PART,
    replace: 'if (assessed.until === Number.POSITIVE_INFINITY) await this.#context.clean.add(subject);',
    by: 'await this.#context.clean.add(subject);',
    promise: 'what was let in by an exception is not let in by onNewFinding afterwards',
    tests: part,
  },
  {
    file: PART,
    replace: "const isReported = this.#settings.onNewFinding === 'report' && (await clean.has(subject));",
    by: "const isReported = this.#settings.onNewFinding === 'report';",
    promise: 'onNewFinding lets in only what was clean before',
    tests: part,
  },
  {
    file: `${SCAN}/subject-kind.ts`,
    replace: "if (isList ? parsed.blobs.length > 0 : parsed.manifests.length > 0) return 'ambiguous';",
    by: '',
    promise: 'an image that is also an index is not let through as a list',
    tests: part,
  },
  {
    file: `${SCAN}/subject-kind.ts`,
    replace: "if (parsed.blobs.some((blob) => IMAGE_LAYER.test(blob.mediaType))) return 'image';",
    by: '',
    promise: 'layers of an image are scanned, whatever their config says',
    tests: part,
  },
  {
    file: `${SCAN}/limits/patience.ts`,
    replace: 'this.#scanner.stop();\n      this.#upstream.run();',
    by: 'this.#upstream.run();',
    promise: 'a slow upstream fails no scan',
    tests: limits,
  },
  {
    file: `${SCAN}/limits/turns.ts`,
    replace: 'if (this.#queue.length > 0 || this.#free < places) await this.#wait(places, signal);',
    by: 'if (this.#free < places) await this.#wait(places, signal);',
    promise: 'whoever came first goes first',
    tests: limits,
  },
  {
    file: ADMISSION,
    replace: "if (listed === undefined) return refuse(response, 404, 'BLOB_UNKNOWN');",
    by: '',
    promise: 'a scan gets only the blobs that its manifest lists',
    tests: route,
  },
  {
    file: ADMISSION,
    replace: "if (digest !== this.#subject.digest) return refuse(response, 404, 'MANIFEST_UNKNOWN');",
    by: '',
    promise: 'a scan gets only its manifest',
    tests: route,
  },
  {
    file: ADMISSION,
    replace: 'this.#leave(this);',
    by: '',
    promise: "a scan's token dies with it",
    tests: route,
  },
  {
    file: ADMISSION,
    replace: 'this.#over.abort();',
    by: '',
    promise: 'a reply breaks off when its scan is over',
    tests: route,
  },
  {
    file: ADMISSION,
    replace: 'for (const error of this.#problems.values()) throw error;',
    by: '',
    promise: 'bytes that upstream does not give are no failure of the scanner',
    tests: route,
  },
  {
    file: ROUTE,
    replace: '[...this.#admissions].filter((admission) => admission.isProvedBy(token))[0];',
    by: '[...this.#admissions][0];',
    promise: 'a wrong token is refused',
    tests: route,
  },
  {
    file: ROUTE,
    replace: 'if (tls === undefined && !isLoopback(host))',
    by: 'if (false)',
    promise: 'a route that others can reach needs a certificate',
    tests: route,
  },
  {
    file: CHILD,
    replace: "child.once('exit', () => killGroup(child));",
    by: '',
    promise: 'what a scanner leaves running ends with it',
    tests: trivy,
  },
  {
    file: CHILD,
    replace: "process.kill(-pid, 'SIGKILL');",
    by: "process.kill(-pid, 'SIGTERM');",
    promise: 'a scanner that ignores SIGTERM is killed at the timeout',
    tests: trivy,
  },
  {
    file: CHILD,
    replace: 'if (this.#length <= maxBytes) {',
    by: 'if (true) {',
    promise: 'a report that never ends is not read to the end',
    tests: trivy,
  },
  {
    file: RUNS,
    replace: '...{ PATH: this.#context.path, HOME: folder.path, TMPDIR: temporary, DOCKER_CONFIG: docker },',
    by: '...process.env, PATH: this.#context.path, HOME: folder.path, TMPDIR: temporary, DOCKER_CONFIG: docker,',
    promise: 'the child has no other variables',
    tests: trivy,
  },
  {
    file: RUNS,
    replace: 'if (own + added > maxBytes)',
    by: 'if (false)',
    promise: 'a scan whose files take more than they may is killed',
    tests: trivy,
  },
  {
    file: RUNS,
    replace: 'await using own = within === undefined ? await this.folders.makeRun() : undefined;',
    by: 'const own = within === undefined ? await this.folders.makeRun() : undefined;',
    promise: 'nothing is left of a run',
    tests: trivy,
  },
  {
    file: TRIVY,
    replace: "if (reason !== undefined) return { kind: 'unavailable', reason };",
    by: '',
    promise: 'a scanner without a database is unavailable, and has not failed on the image',
    tests: trivy,
  },
  {
    file: TRIVY,
    replace: 'if (code !== 0) {',
    by: 'if (false) {',
    promise: 'a scanner that dies has failed',
    tests: trivy,
  },
  {
    file: TRIVY,
    replace: 'admitted.admission.requireContent();',
    by: '',
    promise: 'bytes that upstream does not give are an error of upstream',
    tests: trivy,
  },
  {
    file: `${SCAN}/trivy/arguments.ts`,
    replace: "...(sealed ? ['--offline-scan'] : []),",
    by: '',
    promise: 'sealed, a scan asks Maven for nothing',
    tests: trivy,
  },
  {
    file: ADAPTER,
    replace:
      "if (patience.signal.aborted) return { kind: 'failed', reason: messageOf(patience.signal.reason) };",
    by: '',
    promise: 'a report that is never ready is awaited no longer than the timeout, and says so',
    tests: adapter,
  },
  {
    file: ADAPTER,
    replace: "return { kind: 'failed', reason: isSafe ? error.message : 'the connection to it broke off' };",
    by: "return { kind: 'unavailable', reason: messageOf(error) };",
    promise: 'an adapter that is gone after it got the image has failed on it',
    tests: adapter,
  },
  {
    file: API,
    replace: 'return Math.min(Math.max(seconds * 1_000, RETRY_MS), LONGEST_RETRY_MS);',
    by: 'return seconds * 1_000;',
    promise: 'a report is asked for no oftener than once a second',
    tests: adapter,
  },
  {
    file: API,
    replace: 'z.string().regex(/^[\\w.~-]{1,200}$/)',
    by: 'z.string()',
    promise: 'an adapter leads us to no other path',
    tests: adapter,
  },
  {
    file: `${SCAN}/trivy/databases.ts`,
    replace: 'using _ = await turns.takeAll(closing);',
    by: 'using _ = await turns.take(closing);',
    promise: 'a database is replaced while nobody scans',
    tests: trivy,
  },
  {
    file: TRIVY,
    replace: 'if (!this.#context.isSealed()) this.#databases.updateIfDue();',
    by: 'this.#databases.updateIfDue();',
    promise: 'sealed, no database is fetched',
    tests: trivy,
  },
  {
    file: `${SCAN}/report/report-reader.ts`,
    replace: "if (countValues(bytes) > MAX_VALUES) return { problem: 'the report is too long' };",
    by: '',
    promise: 'a report takes no more memory than there is',
    tests: report,
  },
  {
    file: `${SCAN}/report/read-report.ts`,
    replace: "if (overflowed) throw new ReportError('the report has too many findings');",
    by: '',
    promise: 'a report of nothing but findings says nothing',
    tests: report,
  },
  {
    file: TRIVY,
    replace: "if (outcome.kind !== 'unavailable' || update === undefined) return outcome;",
    by: 'return outcome;',
    promise: 'a first database is awaited',
    tests: trivy,
  },
  {
    file: `${SCAN}/trivy/databases.ts`,
    replace: 'if (!(await hasBytes(join(fetched, folder, file)))) return true; // Trivy wanted no newer one',
    by: '',
    promise: 'a database that is new enough stays',
    tests: trivy,
  },
];
