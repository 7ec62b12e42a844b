/** Makes tars and image layouts of the entries that a test gives, right or wrong. */
import { buffer } from 'node:stream/consumers';
import { type Header, pack } from 'tar-stream';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import { OCI_MANIFEST } from '../../src/oci/manifest.ts';
import { type LayoutLimits, type LayoutSink, readLayout } from '../../src/transfer/layout/layout-reader.ts';

export interface TestEntry extends Partial<Header> {
  name: string;
  bytes?: Buffer | string;
}

export async function tarOf(entries: TestEntry[]): Promise<Buffer> {
  const tar = pack();
  for (const { bytes, ...header } of entries) {
    const content = Buffer.from(bytes ?? '');
    const entry = tar.entry({ mtime: new Date(0), size: content.length, ...header });
    if (content.length > 0) entry.write(content);
    entry.end(undefined);
  }
  tar.finalize();
  return buffer(tar as AsyncIterable<Buffer>);
}

export function blobEntry(bytes: Buffer, digest = digestOf(bytes)): TestEntry {
  return { name: `blobs/${digest.replace(':', '/')}`, bytes };
}

export const VERSION_ENTRY: TestEntry = { name: 'oci-layout', bytes: '{"imageLayoutVersion":"1.0.0"}' };

export interface TestListing {
  digest: string;
  size: number;
  mediaType?: string;
  annotations?: Record<string, string>;
}

export function indexEntry(...listings: TestListing[]): TestEntry {
  const manifests = listings.map((listing) => ({ mediaType: OCI_MANIFEST, ...listing }));
  return { name: 'index.json', bytes: JSON.stringify({ schemaVersion: 2, manifests }) };
}

/** Returns the entries of a correct layout with one blob, a manifest; a test adds to it or changes it. */
export function layoutOf(manifest: Buffer, annotations: Record<string, string> = {}): TestEntry[] {
  const listing = { digest: digestOf(manifest), size: manifest.length, annotations };
  return [VERSION_ENTRY, indexEntry(listing), blobEntry(manifest)];
}

/** Keeps every blob, and the digest of every call. */
export class KeepingSink implements LayoutSink {
  readonly blobs = new Map<Digest, Buffer>();
  readonly calls: Digest[] = [];

  async blob(digest: Digest, size: number, body: AsyncIterable<Buffer>): Promise<void> {
    this.calls.push(digest);
    const bytes = await buffer(body);
    if (bytes.length !== size) throw new Error(`${digest}: ${bytes.length} bytes instead of ${size}`);
    this.blobs.set(digest, bytes);
  }
}

/** Reads `tar` in pieces that do not match its blocks, as they come from a socket. */
export function readTar(tar: Buffer, sink: LayoutSink, limits?: LayoutLimits, step = 1000) {
  return readLayout(pieces(tar, step), sink, limits);
}

export async function* pieces(bytes: Buffer, step: number): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}
