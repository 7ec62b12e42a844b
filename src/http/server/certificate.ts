/** The certificate of a TLS listener and the client certificates that it trusts. Their files are read again when they change. */
import { constants, X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContextOptions, TLSSocket, type TlsOptions } from 'node:tls';
import type { ClientTrust } from '../../access/certificates/client-trust.ts';
import type { CertificateIdentity } from '../../access/rules/identities.ts';
import type { Clock } from '../../clock.ts';
import { WatchedFiles } from '../../files/watched-files.ts';
import type { Logger } from '../../telemetry/log.ts';

const LOOK_MS = 1_000;

export interface CertificateSettings {
  /** PEM files. */
  certificate: string;
  key: string;
  clientCa?: string | undefined;
  clientCrl?: string | undefined;
  clientCertificate: 'optional' | 'required';
}

interface Loaded {
  context: SecureContextOptions;
  trust: ClientTrust | undefined;
}

export class ServerCertificate implements Disposable {
  readonly #settings: CertificateSettings;
  readonly #clock: Clock;
  readonly #files: WatchedFiles<Loaded>;
  readonly #timer: Disposable;
  #loaded: Loaded;
  #onChange: ((context: SecureContextOptions) => void) | undefined;

  private constructor(
    settings: CertificateSettings,
    context: { clock: Clock },
    files: WatchedFiles<Loaded>,
    loaded: Loaded,
  ) {
    this.#settings = settings;
    this.#clock = context.clock;
    this.#files = files;
    this.#loaded = loaded;
    this.#timer = context.clock.every(LOOK_MS, () => void this.#look());
  }

  /**
   * @param context.onExpiry is called with the end of the certificate in use: milliseconds since the epoch
   * @throws {FileError} a file cannot be read @throws {Error} they do not fit each other, or cannot be used
   */
  static async open(
    settings: CertificateSettings,
    context: { clock: Clock; logger: Logger; onExpiry?: (at: number) => void },
  ): Promise<ServerCertificate> {
    const { certificate, key, clientCa, clientCrl } = settings;
    const paths = [certificate, key, ...(clientCa === undefined ? [] : [clientCa, clientCrl ?? []].flat())];
    const parse = async (contents: readonly Buffer[]) => {
      const loaded = await load(contents, paths);
      context.onExpiry?.(new X509Certificate(contents[0] ?? '').validToDate.getTime());
      return loaded;
    };
    const files = await WatchedFiles.open({ paths, secrets: [key], parse }, context);
    return new ServerCertificate(settings, context, files, await files.current());
  }

  /** Options of the listener. */
  get tls(): TlsOptions {
    const { clientCa, clientCertificate } = this.#settings;
    return {
      ...this.#loaded.context,
      requestCert: clientCa !== undefined,
      rejectUnauthorized: clientCertificate === 'required',
    };
  }

  /** @param onChange is called when the files have changed and can be used; connections that are open go on as they are */
  watch(onChange: (context: SecureContextOptions) => void): void {
    this.#onChange = onChange;
  }

  /** The identity of the client at the other end of a connection, by what the files say now. */
  identityOf(socket: Socket): CertificateIdentity | undefined {
    const { trust } = this.#loaded;
    return trust === undefined || !(socket instanceof TLSSocket)
      ? undefined
      : trust.identityOf(socket, this.#clock.now());
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  async #look(): Promise<void> {
    const loaded = await this.#files.current();
    if (loaded === this.#loaded) return;
    this.#loaded = loaded;
    this.#onChange?.(loaded.context);
  }
}

async function load(contents: readonly Buffer[], paths: readonly string[]): Promise<Loaded> {
  const [cert, key, ca, crl] = contents;
  let trust: ClientTrust | undefined;
  if (ca !== undefined) {
    // Loaded only where it is configured: reading certificates takes 13 MiB of code.
    const { ClientTrust: Trust } = await import('../../access/certificates/client-trust.ts');
    trust = new Trust(ca.toString('utf8'), crl?.toString('utf8'));
  }
  const context: SecureContextOptions = {
    ...trustOptions(trust),
    ...{ cert, key, minVersion: 'TLSv1.2' },
    // A client that renegotiates could show another certificate in the middle of a connection.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
  };
  try {
    createSecureContext(context);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${paths.slice(0, 2).join(' and ')} are not a certificate and its private key: ${why}`, {
      cause: error,
    });
  }
  return { context, trust };
}

function trustOptions(trust: ClientTrust | undefined): SecureContextOptions {
  if (trust === undefined) return {};
  const { ca, crl } = trust.tls;
  return { ca: [...ca], ...(crl === undefined ? {} : { crl: [...crl] }) };
}
