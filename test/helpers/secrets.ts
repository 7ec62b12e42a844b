/** Nothing that a mirror tells may hold what it was told in confidence. */
import assert from 'node:assert/strict';
import { request } from 'undici';
import type { TestMirror } from './start-mirror.ts';

const SIGNED = /[?&](?:sig|signature|X-Amz-Signature|verify|token)=/i;
const AUTHORIZATION = /\b(?:Bearer|Basic) [A-Za-z0-9+/=._~-]{12,}/;
const SHORTEST_SECRET = 6;

/**
 * For every mirror of every test: log lines and errors hold no authorization, no signed URL, and nothing that the
 * environment holds but where programs and proxies are.
 */
export function assertNothingTold(texts: readonly string[], environment: Record<string, string>): void {
  const secrets = Object.entries(environment)
    .filter(([name, value]) => !/^PATH$|PROXY$/i.test(name) && value.length >= SHORTEST_SECRET)
    .map(([, value]) => value);
  for (const text of texts) {
    assert.doesNotMatch(text, AUTHORIZATION);
    assert.doesNotMatch(text, SIGNED);
    for (const secret of secrets) assert.ok(!text.includes(secret), 'a secret of the environment was told');
  }
}

/** @param told replies to clients, besides the log, the metrics and the status */
export async function assertTellsNoSecret(
  mirror: TestMirror,
  told: readonly Buffer[],
  secrets: readonly string[],
): Promise<void> {
  const texts = await Promise.all(
    ['/metrics', '/api/status', '/api/images'].map(async (path) =>
      (await request(mirror.operationsUrl + path)).body.text(),
    ),
  );
  texts.push(JSON.stringify(mirror.log), ...told.map(String));
  for (const secret of secrets) {
    assert.ok(
      texts.every((text) => !text.includes(secret)),
      `${secret} was told`,
    );
  }
  assertNothingTold(texts, {});
}
