/** What went wrong with an S3-compatible store. */
import { S3ServiceException } from '@aws-sdk/client-s3';
import { EngineError, type EngineErrorCode } from '../engines/errors.ts';

export function hasStatus(error: unknown, status: number): boolean {
  return error instanceof S3ServiceException && error.$metadata.httpStatusCode === status;
}

export function isAboutBucket(error: unknown): boolean {
  return error instanceof S3ServiceException && error.name === 'NoSuchBucket';
}

/** Maps an error of the SDK. Its message may hold a signed URL, so only what is known of it is passed on. */
export function engineError(error: unknown, signal: AbortSignal): EngineError {
  if (error instanceof EngineError) return error;
  if (signal.aborted && signal.reason instanceof EngineError) return signal.reason;
  if (!(error instanceof S3ServiceException)) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    const isCredential = error instanceof Error && error.name === 'CredentialsProviderError';
    return isCredential
      ? new EngineError('denied', 'no credentials for the object store were found', { cause: error })
      : new EngineError(
          'unavailable',
          `the object store cannot be reached${code === '' ? '' : ` (${code})`}`,
          {
            cause: error,
          },
        );
  }
  const status = error.$metadata.httpStatusCode ?? 0;
  return refusal(status, error.name, error);
}

/** @param name what the store calls it, such as `AccessDenied` */
export function refusal(status: number, name: string, cause?: unknown): EngineError {
  return new EngineError(codeOf(status, name), wordsFor(status, name), { cause });
}

function codeOf(status: number, name: string): EngineErrorCode {
  if (name === 'NoSuchBucket' || name === 'PermanentRedirect' || name === 'AuthorizationHeaderMalformed')
    return 'misconfigured';
  if (status === 301) return 'misconfigured';
  if (status === 401 || status === 403) return 'denied';
  return status === 0 || status === 429 || status >= 500 ? 'unavailable' : 'invalid-response';
}

function wordsFor(status: number, name: string): string {
  if (name === 'NoSuchBucket') return 'the bucket does not exist: make it, or change fleet.objects.bucket';
  if (name === 'PermanentRedirect' || name === 'AuthorizationHeaderMalformed' || status === 301)
    return 'the bucket is in another region: change fleet.objects.region';
  if (status === 401 || status === 403)
    return `the object store refuses us (${name}): check fleet.objects.credentials and the policy of the bucket`;
  return `the object store answered ${status} (${name})`;
}
