/** Takes objects out of a bucket of an S3-compatible store. */
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { type Agent, request } from 'undici';
import { EngineError } from '../engines/errors.ts';
import type { Removal } from './object-store.ts';
import { engineError, refusal } from './s3-errors.ts';

interface Place {
  Bucket: string;
  Key: string;
}

/** The signature stands in the URL and says until when it counts: the store itself refuses it later. */
export async function presignedRemoval(
  client: S3Client,
  at: Place,
  options: { ifMatch?: string; lastsMs: number; signedAt: Date; agent: Agent; signal: AbortSignal },
): Promise<Removal> {
  const { ifMatch, lastsMs, signedAt, agent, signal } = options;
  const condition = ifMatch === undefined ? {} : { IfMatch: ifMatch };
  const command = new DeleteObjectCommand({ ...at, ...condition });
  const signing = { expiresIn: lastsMs / 1000, signingDate: signedAt };
  const url = await getSignedUrl(client, command, signing).catch((error: unknown) => {
    throw engineError(error, signal);
  });
  return async (stop) => {
    const result = await sendRemoval(url, ifMatch === undefined ? {} : { 'if-match': ifMatch }, agent, stop);
    if (result !== 'unknown condition') return result;
    const { ifMatch: _, ...plain } = options;
    return (await presignedRemoval(client, at, plain))(stop);
  };
}

/** @param before when they were begun; milliseconds since the epoch @throws {EngineError} */
export async function abortOldWrites(
  client: S3Client,
  below: { Bucket: string; Prefix: string },
  { isOwn, before, signal }: { isOwn: (name: string) => boolean; before: number; signal: AbortSignal },
): Promise<number> {
  const { Bucket, Prefix } = below;
  let aborted = 0;
  let next: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {};
  try {
    while (next !== undefined) {
      const list: ListMultipartUploadsCommand = new ListMultipartUploadsCommand({ ...below, ...next });
      const page = await client.send(list, { abortSignal: signal });
      for (const { Key = '', UploadId, Initiated } of page.Uploads ?? []) {
        if (!Key.startsWith(Prefix) || !isOwn(Key.slice(Prefix.length))) continue;
        if (Initiated === undefined || Initiated.getTime() >= before) continue;
        const abort = new AbortMultipartUploadCommand({ Bucket, Key, UploadId });
        await client.send(abort, { abortSignal: signal });
        aborted += 1;
      }
      const { IsTruncated, NextKeyMarker: KeyMarker, NextUploadIdMarker: UploadIdMarker } = page;
      next =
        IsTruncated === true && KeyMarker !== undefined && UploadIdMarker !== undefined
          ? { KeyMarker, UploadIdMarker }
          : undefined;
    }
    return aborted;
  } catch (error) {
    throw engineError(error, signal);
  }
}

async function sendRemoval(
  url: string,
  headers: Record<string, string>,
  dispatcher: Agent,
  signal: AbortSignal,
): Promise<'removed' | 'changed' | 'unknown condition'> {
  try {
    const { statusCode, body } = await request(url, { method: 'DELETE', headers, dispatcher, signal });
    const text = await body.text();
    if (statusCode === 412) return 'changed';
    if (statusCode === 501 && headers['if-match'] !== undefined) return 'unknown condition';
    if (statusCode === 204 || statusCode === 200) return 'removed';
    throw refusal(statusCode, /<Code>(\w{1,60})<\/Code>/.exec(text)?.[1] ?? '');
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw engineError(error, signal); // says nothing of the URL
  }
}
