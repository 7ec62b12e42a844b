/** The identities that rules distinguish. */

/** A user of the htpasswd file. */
interface UserIdentity {
  readonly kind: 'user';
  readonly name: string;
}

/** A robot token of the tokens file. */
interface TokenIdentity {
  readonly kind: 'token';
  readonly name: string;
}

/** The bearer of a JWT. */
export interface OidcIdentity {
  readonly kind: 'oidc';
  /** The name that the configuration gives the issuer. */
  readonly name: string;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** The holder of a client certificate that was verified. */
export interface CertificateIdentity {
  readonly kind: 'certificate';
  /** `CN=…`, `DNS:…`, `URI:…` and `EMAIL:…`; at least one. */
  readonly names: readonly string[];
}

export interface AnonymousIdentity {
  readonly kind: 'anonymous';
}

/** What the credentials of a request can prove. */
type CredentialsIdentity = UserIdentity | TokenIdentity | OidcIdentity;

export type Identity = AnonymousIdentity | CredentialsIdentity | CertificateIdentity;

export type IdentityKind = Identity['kind'];

export const ANONYMOUS: AnonymousIdentity = { kind: 'anonymous' };

/**
 * The sender of a request. Everybody is also anonymous: a rule that allows anonymous clients allows everybody.
 *
 * Hand in the same identity object for the requests of one session or connection: rules remember OIDC and
 * certificate identities by the object.
 */
export interface Asker {
  readonly credentials?: CredentialsIdentity | undefined;
  /** Of the connection on which this very request came. */
  readonly certificate?: CertificateIdentity | undefined;
  /** The client's address in canonical form. Without one, no rule with a network holds. */
  readonly address?: string | undefined;
}

/** As `who` in a rule spells them: `user:ops`, or each name of a certificate. */
export function spellings(identity: Identity): string[] {
  switch (identity.kind) {
    case 'anonymous':
      return ['anonymous'];
    case 'certificate':
      return identity.names.map((name) => `certificate:${name}`);
    case 'user':
    case 'token':
    case 'oidc':
      return [`${identity.kind}:${identity.name}`];
  }
}
