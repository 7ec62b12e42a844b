/** Reads the bodies of requests, within limits. */
import type { IncomingMessage } from 'node:http';
import type * as z from 'zod';
import { ApiError } from './errors.ts';

/** Enough for the digests of an earlier archive, which take the most: two hundred thousand of them. */
const JSON_MAX_BYTES = 16 * 1024 * 1024;

/** @throws {ApiError} 400: it has another form */
export function checked<T>(schema: z.ZodType<T>, data: unknown): T {
  const { data: value, error } = schema.safeParse(data);
  if (error === undefined) return value;
  const problems = error.issues.map(({ path, message }) => `${path.join('.') || 'the body'}: ${message}`);
  throw new ApiError(400, problems.join('; '));
}

/** @throws {ApiError} if it is not JSON, or too long */
export async function readJson(request: IncomingMessage, stallMs: number): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of unlessStalled(request, stallMs)) {
    length += chunk.length;
    if (length > JSON_MAX_BYTES) throw new ApiError(400, `the body is longer than ${JSON_MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new ApiError(400, 'the body is not JSON');
  }
}

/** Reads the body of a request. Cuts the connection if nothing comes for `stallMs` although we wait for it. */
export async function* unlessStalled(
  request: IncomingMessage,
  stallMs: number,
): AsyncGenerator<Buffer, void> {
  const cut = () => request.destroy(new Error(`the client sent nothing for ${stallMs} ms`));
  let timer = setTimeout(cut, stallMs);
  try {
    // Not destroyed if we stop early: the reply goes out on the same connection.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      clearTimeout(timer);
      yield chunk as Buffer;
      timer = setTimeout(cut, stallMs);
    }
  } finally {
    clearTimeout(timer);
  }
}
