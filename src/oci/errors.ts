/** The wire errors of the registry API: one table, one class. */

/** Code → HTTP status and default message (OCI distribution-spec "Error Codes", statuses as distribution sends them). */
export const OCI_ERRORS = {
  BLOB_UNKNOWN: { status: 404, message: 'blob unknown to registry' },
  DENIED: { status: 403, message: 'requested access to the resource is denied' },
  DIGEST_INVALID: { status: 400, message: 'provided digest is not valid' },
  MANIFEST_UNKNOWN: { status: 404, message: 'manifest unknown to registry' },
  NAME_INVALID: { status: 400, message: 'invalid repository name' },
  NAME_UNKNOWN: { status: 404, message: 'repository name not known to registry' },
  PAGINATION_NUMBER_INVALID: { status: 400, message: 'invalid number of results requested' },
  RANGE_INVALID: { status: 416, message: 'requested range cannot be satisfied' },
  TAG_INVALID: { status: 400, message: 'invalid tag name' },
  TOOMANYREQUESTS: { status: 429, message: 'too many requests' },
  UNAUTHORIZED: { status: 401, message: 'authentication required' },
  UNAVAILABLE: { status: 502, message: 'upstream registry unavailable' },
  UNKNOWN: { status: 500, message: 'unknown error' },
  UNSUPPORTED: { status: 405, message: 'the operation is unsupported' },
} as const satisfies Record<string, { status: number; message: string }>;

export type OciErrorCode = keyof typeof OCI_ERRORS;

export interface RegistryErrorOptions {
  message?: string;
  /** Only where the table's status does not fit, such as 504 for an upstream that timed out. */
  status?: number;
  detail?: Record<string, unknown>;
  headers?: Record<string, string>;
  cause?: unknown;
}

/** An error as a registry client will see it. */
export class RegistryError extends Error {
  override readonly name = 'RegistryError';
  readonly code: OciErrorCode;
  readonly status: number;
  readonly detail: Record<string, unknown>;
  readonly headers: Record<string, string>;

  constructor(code: OciErrorCode, options: RegistryErrorOptions = {}) {
    super(options.message ?? OCI_ERRORS[code].message, { cause: options.cause });
    this.code = code;
    this.status = options.status ?? OCI_ERRORS[code].status;
    this.detail = options.detail ?? {};
    this.headers = options.headers ?? {};
  }
}
