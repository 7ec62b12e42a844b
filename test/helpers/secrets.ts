/** Nothing that a mirror tells may hold what it was told in confidence. */
import assert from 'node:assert/strict';
import { request } from 'undici';
import type { TestMirror } from './start-mirror.ts';

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
  // Signed URLs of object stores.
  for (const text of texts) assert.doesNotMatch(text, /[?&](?:sig|signature|X-Amz-Signature|token)=/i);
}
