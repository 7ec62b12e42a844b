import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { createLogger, type LogLevel } from '../../../src/telemetry/log.ts';
import { RequestLog } from '../../../src/telemetry/request-log.ts';

const LOG = new URL('../../../src/telemetry/log.ts', import.meta.url).href;

/** Lines of every length, some longer than a piece, in more than one byte a character. */
const LINES = Array.from({ length: 60 }, (_, n) => `${n} ${'é€😀'.repeat((n * n * n) % 20_000)}`);

for (const [end, code] of [
  ['the process ends', 'process.exit(0)'],
  ['an error that nobody catches ends the process', "throw new Error('defect')"],
  ['the process flushes and ends', 'output.flushSync(); process.exit(0)'],
] as const) {
  test(`every line is written, whole and in order, when ${end}`, async () => {
    const program = `
      import { bufferedOutput } from ${JSON.stringify(LOG)};
      const output = bufferedOutput();
      const part = 'é€😀';
      for (let n = 0; n < ${LINES.length}; n += 1) output.write(n + ' ' + part.repeat((n * n * n) % 20_000) + '\\n');
      ${code};`;
    const printed = await new Promise<string>((resolve) => {
      const options = { maxBuffer: 64 * 1024 * 1024 };
      execFile(process.execPath, ['--input-type=module', '-e', program], options, (_error, stdout) =>
        resolve(stdout),
      );
    });
    assert.deepEqual(printed.split('\n'), [...LINES, '']);
  });
}

function requestLog(level: LogLevel): { log: RequestLog; lines: string[] } {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  const now = () => 0;
  return {
    log: new RequestLog({ logger: createLogger({ level, destination, now }), destination, now }),
    lines,
  };
}

const LINE = {
  requestId: 'a-1',
  client: '::1',
  method: 'GET',
  kind: 'manifest',
  upstream: 'docker.io',
  repository: 'library/alpine',
  reference: '3.20',
  status: 200,
  cache: 'hit',
  bytes: 472,
  durationMs: 1,
  firstByteMs: 0,
  path: undefined,
  aborted: undefined,
  err: undefined,
};

test('a request’s line is one line of JSON with the fields that are known', () => {
  const { log, lines } = requestLog('info');
  log.write(LINE);
  const unknown = { kind: undefined, upstream: undefined, repository: undefined, reference: undefined };
  const hostile = '/"}\n{"level":"fatal"}\\\u2028';
  log.write({ ...LINE, ...unknown, cache: undefined, path: hostile, aborted: true, err: hostile });
  assert.ok(lines.every((line) => line.endsWith('}\n') && line.trimEnd().split('\n').length === 1));
  const common = { level: 'info', time: '1970-01-01T00:00:00.000Z', msg: 'request' };
  const { requestId, client, method, status, bytes, durationMs, firstByteMs } = LINE;
  const always = { requestId, client, method, status, bytes, durationMs, firstByteMs };
  const { path: _path, aborted: _aborted, err: _err, ...known } = LINE;
  assert.deepEqual(
    lines.map((line) => JSON.parse(line) as unknown),
    [
      { ...common, ...known },
      { ...common, ...always, path: hostile, aborted: true, err: hostile },
    ],
  );
});

test('a log level above info writes no line for a request', () => {
  const { log, lines } = requestLog('warn');
  log.write(LINE);
  assert.deepEqual(lines, []);
});
