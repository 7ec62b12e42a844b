/**
 * Reads the JWS envelope of a Notation signature.
 *
 * https://github.com/notaryproject/specifications/blob/main/specs/signature-envelope-jws.md
 */
import { X509Certificate } from 'node:crypto';
import { arrayOf, type JsonObject, objectOf, parseObject, stringOf } from '../reading/json.ts';

const MAX_CERTIFICATES = 8;

export interface Envelope {
  /** As it came, for the check of the signature. */
  jws: { payload: string; protected: string; signature: string; header: JsonObject };
  /** The headers that are signed. */
  headers: JsonObject;
  payload: JsonObject;
  /** Of the signer and those above. */
  chain: readonly X509Certificate[];
}

/** Undefined: it cannot be read. */
export function readEnvelope(content: Buffer): Envelope | undefined {
  const envelope = parseObject(content);
  const [payload, headers, signature] = ['payload', 'protected', 'signature'].map((name) =>
    stringOf(envelope?.[name]),
  );
  const header = objectOf(envelope?.['header']) ?? {};
  const certificates = arrayOf(header['x5c']);
  if (payload === undefined || headers === undefined || signature === undefined) return undefined;
  if (certificates.length > MAX_CERTIFICATES) return undefined;
  const [parsedPayload, parsedHeaders] = [payload, headers].map((text) =>
    parseObject(Buffer.from(text, 'base64url')),
  );
  if (parsedPayload === undefined || parsedHeaders === undefined) return undefined;
  try {
    return {
      jws: { payload, protected: headers, signature, header },
      headers: parsedHeaders,
      payload: parsedPayload,
      chain: certificates.map((text) => new X509Certificate(Buffer.from(stringOf(text) ?? '', 'base64'))),
    };
  } catch {
    return undefined;
  }
}
