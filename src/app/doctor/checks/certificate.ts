/** Looks at the certificate of an upstream. */
import { isIP, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { tlsOptions } from '../../../upstream/network/transport.ts';
import { type Endpoint, hostOf } from './context.ts';
import { CheckFailure, type Finding } from './result.ts';

const DAY_MS = 24 * 3600 * 1000;
const DAYS_TO_WARN = 14;

/** @param socket to the upstream @throws {CheckFailure} */
export async function checkCertificate(
  { name, url, settings, clock }: Endpoint,
  socket: Socket,
  signal: AbortSignal,
): Promise<Finding> {
  const secured = await handshake(socket, url, {
    signal,
    key: `upstreams.${name}`,
    secureContext: tlsOptions(settings, settings.clientCertificate).secureContext,
  });
  const { valid_to: end, valid_from: begin } = secured.getPeerCertificate();
  const code = String(secured.authorizationError ?? '');
  if (code !== '') throw distrusted(code, { name, host: hostOf(url), begin: day(begin), end: day(end) });
  const days = Math.floor((Date.parse(end) - clock.now()) / DAY_MS);
  const message = `${secured.getProtocol() ?? 'TLS'}, the certificate is valid for another ${days} days, until ${day(end)}`;
  return days >= DAYS_TO_WARN
    ? { outcome: 'ok', message }
    : { outcome: 'warning', message, advice: 'tell whoever runs the registry to renew it' };
}

function handshake(
  socket: Socket,
  url: URL,
  options: {
    signal: AbortSignal;
    key: string;
    secureContext: ReturnType<typeof tlsOptions>['secureContext'];
  },
): Promise<TLSSocket> {
  const { signal, key, secureContext } = options;
  const host = hostOf(url);
  return new Promise((resolve, reject) => {
    const secured = connect({
      socket,
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ALPNProtocols: ['http/1.1'],
      // Shows also a certificate that is not trusted, so that we can say why. Nothing is sent on this connection.
      rejectUnauthorized: false,
      ...(secureContext === undefined ? {} : { secureContext }),
    });
    const fail = (error: Error & { code?: string }) => {
      const what = `no TLS with ${url.host}: ${reasonOf(error)}`;
      reject(new CheckFailure(what, `check ${key}.url: a registry without TLS needs http://`, error));
    };
    secured.on('error', fail);
    secured.once('secureConnect', () => resolve(secured));
    signal.addEventListener('abort', () => secured.destroy(), { once: true });
  });
}

function reasonOf({ code, message }: { code?: string; message: string }): string {
  switch (code) {
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return 'the server does not speak TLS';
    case 'ECONNRESET':
      return 'the server closed the connection';
    case undefined:
      return message;
    default:
      return code;
  }
}

function distrusted(
  code: string,
  { name, host, begin, end }: { name: string; host: string; begin: string; end: string },
): CheckFailure {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return new CheckFailure(
        `its certificate expired on ${end} (${code})`,
        'tell whoever runs the registry to renew it; if the date is still to come, set the clock of this machine',
      );
    case 'CERT_NOT_YET_VALID':
      return new CheckFailure(
        `its certificate is not valid before ${begin} (${code})`,
        'set the clock of this machine; if it is right, tell whoever runs the registry',
      );
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return new CheckFailure(
        `its certificate is not for ${host} (${code})`,
        `check the host in upstreams.${name}.url`,
      );
    default:
      return new CheckFailure(
        `its certificate is of an authority that this machine does not trust (${code})`,
        `if you trust it, name its PEM file in upstreams.${name}.ca`,
      );
  }
}

/** `2026-01-31`, of the time in a certificate. */
function day(time: string): string {
  const at = Date.parse(time);
  return Number.isNaN(at) ? 'an unknown day' : new Date(at).toISOString().slice(0, 10);
}
