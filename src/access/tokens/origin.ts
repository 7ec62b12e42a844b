/** The credentials that one of the mirror's tokens was issued for. The token ends with them. */
import type { OidcSession } from '../oidc/issuer.ts';

export type TokenOrigin =
  | {
      readonly kind: 'anonymous';
      /** The client sent credentials that are unknown here. A later refusal says so. */
      readonly unknownCredentials: boolean;
    }
  | {
      /** A user of the htpasswd file, or a robot token. */
      readonly kind: 'user' | 'token';
      readonly name: string;
      /**
       * The fingerprint of the line in its file: it changes when the password or the secret does. Not the secret
       * itself.
       */
      readonly fingerprint: string;
    }
  | OidcSession;

/** An origin that can change or go. */
export type NamedOrigin = Exclude<TokenOrigin, { kind: 'anonymous' }>;

/** Whether the origin is still there, with the same fingerprint. Asked for every request. */
export type IsCurrent = (origin: NamedOrigin) => Promise<boolean>;
