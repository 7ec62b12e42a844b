/** Makes Notation signatures in JWS envelopes, right ones and wrong ones. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { FlattenedSign } from 'jose';
import type { Certificate } from '../certificates.ts';
import type { TestLayer } from './test-evidence.ts';

export const NOTATION = 'application/vnd.cncf.notary.signature';
export const SCHEME = 'io.cncf.notary.signingScheme';
export const SIGNING_TIME = 'io.cncf.notary.signingTime';
export const EXPIRY = 'io.cncf.notary.expiry';

export interface EnvelopeOptions {
  /** In place of the headers of the same names; undefined: it has none. */
  headers?: Record<string, unknown>;
  payload?: unknown;
  alg?: string;
}

/** @param chain the signer's certificate first */
export async function jwsLayer(
  digest: string,
  signer: Certificate,
  chain: readonly string[],
  { headers = {}, payload = { targetArtifact: { digest } }, alg = 'ES256' }: EnvelopeOptions = {},
): Promise<TestLayer> {
  const all = {
    alg,
    cty: 'application/vnd.cncf.notary.payload.v1+json',
    crit: [SCHEME],
    [SCHEME]: 'notary.x509',
    [SIGNING_TIME]: '2026-01-01T00:00:00Z',
    ...headers,
  };
  const known = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  const crit = Object.fromEntries(((known['crit'] ?? []) as string[]).map((name) => [name, true]));
  const signed = await new FlattenedSign(Buffer.from(JSON.stringify(payload)))
    .setProtectedHeader(known)
    .sign(createPrivateKey(signer.key), { crit });
  const x5c = chain.map((pem) => new X509Certificate(pem).raw.toString('base64'));
  const content = Buffer.from(JSON.stringify({ ...signed, header: { x5c } }));
  return { mediaType: 'application/jose+json', content };
}
