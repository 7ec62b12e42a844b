/** Reads a Sigstore trusted root: the authorities and logs that signatures are checked against. */
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { type TrustMaterial, toTrustMaterial } from '@sigstore/verify';
import { FileError } from '../../../../files/errors.ts';

const MEDIA_TYPE = /^application\/vnd\.dev\.sigstore\.trustedroot(?:\+json;version=|\.v)0\.[12](?:\+json)?$/;

/** What of a trusted root must not be empty. */
export type Needed = 'tlogs' | 'certificateAuthorities' | 'ctlogs';

const NAMES: Record<Needed, string> = {
  tlogs: 'transparency log',
  certificateAuthorities: 'certificate authority',
  ctlogs: 'log of certificates',
};

/**
 * @param file named in errors
 * @throws {FileError}
 */
export function readTrustedRoot(content: Buffer, needed: readonly Needed[], file: string): TrustMaterial {
  const json = parse(content, file);
  let material: TrustMaterial;
  try {
    const root = TrustedRoot.fromJSON(json);
    if (!MEDIA_TYPE.test(root.mediaType)) throw new Error('mediaType');
    material = toTrustMaterial(root);
  } catch (cause) {
    // Not the message of the library, which may quote the file.
    throw new FileError(file, 'not a trusted root of Sigstore (trusted_root.json): fetch it anew', { cause });
  }
  for (const kind of needed) {
    const isEmpty =
      kind === 'certificateAuthorities'
        ? !material.certificateAuthorities.some(({ certChain }) => certChain.length > 0)
        : material[kind].length === 0;
    if (isEmpty) throw new FileError(file, `names no ${NAMES[kind]}: nothing could be checked against it`);
  }
  return material;
}

function parse(content: Buffer, file: string): unknown {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    // Without the cause, which quotes the file.
    throw new FileError(file, 'not JSON: fetch the trusted root anew');
  }
}
