/** The identity that a password or a robot token stands for. */
import { hash } from 'node:crypto';

export type CredentialKind = 'user' | 'token';

export interface CredentialIdentity {
  readonly kind: CredentialKind;
  readonly name: string;
  /**
   * Stands for the line that the identity came from. It changes with the password or the secret, so what is issued for
   * the old line can be refused. It reveals neither and may be written into a token.
   */
  readonly fingerprint: string;
}

const FINGERPRINT_LENGTH = 16;

/** @param secretHash the hash that the line holds, not the secret */
export function fingerprintOf(kind: CredentialKind, name: string, secretHash: string): string {
  return hash('sha256', `${kind}:${name}:${secretHash}`, 'base64url').slice(0, FINGERPRINT_LENGTH);
}
