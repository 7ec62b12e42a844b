/** What a policy can demand of signatures. */

export interface SignatureSettings {
  /** Signed by one of these keys. Files with public keys in PEM. */
  cosign?:
    | {
        keys: readonly string[];
        /** A file: a trusted root, of whose logs one must have the signature. Absent: none need have it. */
        transparencyLog?: { trustedRoot: string } | undefined;
      }
    | undefined;
  /** Signed by an identity. `*` in the subject stands for any text; the trusted root is a file. */
  keyless?: { issuer: string; subject: string; trustedRoot: string } | undefined;
  notation?:
    | {
        /** Files with certificates of authorities in PEM. */
        trustStore: readonly string[];
        /** `x509.subject: C=US, ST=WA, O=acme`. */
        identities: readonly string[];
      }
    | undefined;
}

/** The files that these settings name. */
export function signatureFiles({ cosign, keyless, notation }: SignatureSettings): string[] {
  const roots = [cosign?.transparencyLog?.trustedRoot, keyless?.trustedRoot];
  return [
    ...new Set([
      ...(cosign?.keys ?? []),
      ...roots.filter((root) => root !== undefined),
      ...(notation?.trustStore ?? []),
    ]),
  ];
}
