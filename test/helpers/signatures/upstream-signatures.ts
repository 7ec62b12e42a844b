/** Puts signatures into a scripted upstream, as cosign does. */
import { type Digest, digestOf } from '../../../src/oci/digest.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../../src/oci/manifest.ts';
import type { ScriptedUpstream } from '../scripted-upstream.ts';
import {
  BUNDLE,
  bundleLayer,
  bundleOf,
  envelopeOf,
  type KeyPair,
  simpleSigning,
  simpleSigningLayer,
} from './cosign-signatures.ts';
import type { TestLayer } from './test-evidence.ts';

interface ArtifactOptions {
  config?: string;
  repository?: string;
  tag?: string;
}

/** Puts a manifest with these layers into a repository. */
export function addArtifact(
  upstream: ScriptedUpstream,
  layers: readonly TestLayer[],
  { config = 'application/vnd.oci.image.config.v1+json', repository = 'org/app', tag }: ArtifactOptions = {},
): { digest: Digest; size: number } {
  const configBytes = Buffer.from('{}');
  upstream.addContent(configBytes);
  for (const { content } of layers) upstream.addContent(content);
  const manifest = Buffer.from(
    JSON.stringify({
      ...{ schemaVersion: 2, mediaType: OCI_MANIFEST },
      config: { mediaType: config, digest: digestOf(configBytes), size: configBytes.length },
      layers: layers.map(({ mediaType, content, annotations }) => ({
        ...{ mediaType, digest: digestOf(content), size: content.length },
        ...(annotations === undefined ? {} : { annotations }),
      })),
    }),
  );
  return { digest: upstream.addManifest(repository, manifest, OCI_MANIFEST, tag), size: manifest.length };
}

interface SignOptions {
  by: KeyPair;
  repository?: string;
}

/** As `cosign sign` did it first. */
export function signUnderTag(
  upstream: ScriptedUpstream,
  digest: Digest,
  { by, repository = 'org/app' }: SignOptions,
): void {
  const tag = `${digest.replace(':', '-')}.sig`;
  addArtifact(upstream, [simpleSigningLayer(simpleSigning(digest), by)], { tag, repository });
}

/** As it does it now. */
export function signByReferrer(upstream: ScriptedUpstream, digest: Digest, { by }: SignOptions): void {
  const layer = bundleLayer(bundleOf(envelopeOf(digest, by)));
  const config = 'application/vnd.oci.empty.v1+json';
  const signature = addArtifact(upstream, [layer], { config });
  const manifests = [{ mediaType: OCI_MANIFEST, ...signature, artifactType: BUNDLE }];
  const list = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  upstream.addReferrers(digest, Buffer.from(JSON.stringify(list)));
}
