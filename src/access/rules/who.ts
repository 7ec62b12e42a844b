/** The `who` of a rule. */
import { compileGlob, type Glob } from './glob.ts';
import type { Identity } from './identities.ts';

export type NamedKind = 'user' | 'token' | 'oidc' | 'certificate';

/** `somebody` is `*`: anyone who is not only anonymous. */
export type Who =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'somebody' }
  | { readonly kind: NamedKind; readonly matches: Glob };

const NAMED = /^(user|token|oidc|certificate):(.+)$/s;
const CERTIFICATE_NAME = /^(?:\*$|CN=.|DNS:.|URI:.|EMAIL:.)/s;

/** @returns undefined when `text` is not a `who` */
export function parseWho(text: string): Who | undefined {
  if (text === 'anonymous') return { kind: 'anonymous' };
  if (text === '*') return { kind: 'somebody' };
  const [, kind, name = ''] = NAMED.exec(text) ?? [];
  if (kind === undefined || (kind === 'certificate' && !CERTIFICATE_NAME.test(name))) return undefined;
  return { kind: kind as NamedKind, matches: compileGlob(name) };
}

/** Only the word `anonymous` names anonymous clients. `*` does not: it must not open a private image to everybody. */
export function isNamed(who: Who, identity: Identity): boolean {
  if (who.kind === 'anonymous') return identity.kind === 'anonymous';
  if (who.kind === 'somebody') return identity.kind !== 'anonymous';
  if (who.kind !== identity.kind) return false;
  return identity.kind === 'certificate' ? identity.names.some(who.matches) : who.matches(identity.name);
}
