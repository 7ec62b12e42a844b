/** A real mirror over TLS, which every client can be told to trust. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { TestAuthority } from './client-certificates.ts';
import type { MirrorAddress } from './login-clients.ts';
import { type RealMirror, startRealMirror } from './real-mirror.ts';
import { freePort } from './real-processes.ts';

export interface TlsMirrorOptions {
  env?: Record<string, string>;
  /** PEM of the authority of client certificates. */
  clientCa?: string;
}

/** @param config merged over a free port with a certificate, and over the cache directory in `directory` */
export async function startTlsMirror(
  t: TestContext,
  directory: string,
  config: Record<string, unknown>,
  { env = {}, clientCa }: TlsMirrorOptions = {},
): Promise<{ mirror: RealMirror; address: MirrorAddress }> {
  const servers = await TestAuthority.root(t, 'servers');
  const own = await servers.issue(t, {
    subject: '/CN=mirror',
    extensions: ['subjectAltName = IP:127.0.0.1, DNS:mirror.test', 'extendedKeyUsage = serverAuth'],
  });
  const write = async (name: string, content: string) => {
    await writeFile(join(directory, name), content, { mode: 0o600 });
    return join(directory, name);
  };
  const tls = {
    certificate: await write('tls.crt', own.cert),
    key: await write('tls.key', own.key),
    ...(clientCa === undefined ? {} : { clientCa: await write('clients.pem', clientCa) }),
  };
  const name = `127.0.0.1:${await freePort()}`;
  const mirror = await startRealMirror(t, directory, { server: { listen: name, tls }, ...config }, env);
  return { mirror, address: { name, ca: await write('servers.pem', servers.cert), caText: servers.cert } };
}
