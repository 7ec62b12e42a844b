/** What clients get of a mirror with policies. */
import assert from 'node:assert/strict';
import type { TestMirror, TestReply } from './start-mirror.ts';

/** Asserts that HEAD and GET are refused by a policy. @returns the body */
export async function refused(
  mirror: TestMirror,
  path: string,
  headers?: Record<string, string>,
): Promise<string> {
  const head = await mirror.head(path, headers);
  assert.equal(head.status, 403, `HEAD ${path}`);
  const reply = await mirror.get(path, headers);
  assert.equal(reply.status, 403, `GET ${path}: ${reply.body.toString()}`);
  assert.equal(reply.error, 'DENIED');
  return reply.body.toString();
}

export async function served(mirror: TestMirror, path: string): Promise<TestReply> {
  const reply = await mirror.get(path);
  assert.equal(reply.status, 200, `GET ${path}: ${reply.body.toString().slice(0, 300)}`);
  return reply;
}
