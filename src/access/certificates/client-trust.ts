/**
 * Decides which client certificates are identities.
 *
 * OpenSSL verifies the chain and its purpose at the handshake. But connections are kept for hours, and a resumed TLS
 * session keeps its old result. So each request checks again what may have changed since: the dates, the authorities
 * and the revocation lists.
 *
 * Only the client's own certificate is taken from the connection. The others must be in `clientCa`: a resumed session
 * does not bring them, and Node 24.21 loses them at every handshake (nodejs/node#65579).
 */
import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { AsnConvert } from '@peculiar/asn1-schema';
import { Certificate } from '@peculiar/asn1-x509';
import type { CertificateIdentity } from '../rules/identities.ts';
import { certificateNames } from './names.ts';
import { RevocationList } from './revocation.ts';

/** The part of a TLS socket that says who is at its other end. */
export type PeerSocket = Pick<TLSSocket, 'authorized' | 'authorizationError' | 'getPeerX509Certificate'>;

/** The content of `clientCa` or `clientCrl` cannot be used. */
export class ClientTrustError extends Error {
  override readonly name = 'ClientTrustError';
  readonly setting: 'clientCa' | 'clientCrl';

  constructor(setting: 'clientCa' | 'clientCrl', message: string, cause?: unknown) {
    super(message, { cause });
    this.setting = setting;
  }
}

/** A time, in milliseconds, in which a certificate and all that it depends on are valid. Includes both ends. */
interface Period {
  readonly from: number;
  readonly until: number;
}

interface Authority {
  readonly certificate: X509Certificate;
  readonly serial: ArrayBuffer;
  readonly list: RevocationList | undefined;
}

/** What does not depend on the time of a request. */
interface Verdict {
  readonly identity: CertificateIdentity | undefined;
  /** One for each chain to a root. */
  readonly periods: readonly Period[];
  /** Why there is no identity, whatever the time. */
  readonly problem: string | undefined;
}

const NO_CERTIFICATE: Verdict = { identity: undefined, periods: [], problem: undefined };

/** The content of `clientCa` and `clientCrl` at one time. When a file changes, another one takes its place. */
export class ClientTrust {
  /** Options of the TLS server. They must be set again whenever the files change. */
  readonly tls: { readonly ca: readonly string[]; readonly crl?: readonly string[] };
  readonly #authorities: readonly Authority[];
  readonly #hasLists: boolean;
  readonly #verdicts = new WeakMap<PeerSocket, Verdict>();

  /**
   * @param ca roots and intermediate authorities, in PEM
   * @param crl a revocation list of each authority, in PEM; undefined: nothing is revoked
   * @throws {ClientTrustError}
   */
  constructor(ca: string, crl?: string) {
    const certificates = pemBlocks(ca, 'CERTIFICATE').map(readAuthority);
    if (certificates.length === 0) throw new ClientTrustError('clientCa', 'holds no certificate in PEM');
    const blocks = crl === undefined ? undefined : pemBlocks(crl, 'X509 CRL');
    if (blocks?.length === 0) throw new ClientTrustError('clientCrl', 'holds no revocation list in PEM');
    const lists = blocks?.map((block, index) => readList(block, index, certificates)) ?? [];

    this.#hasLists = blocks !== undefined;
    this.#authorities = certificates.map((certificate) => {
      const [list, ...more] = lists.filter((one) => one.isSignedBy(certificate));
      if (more.length > 0) {
        throw new ClientTrustError(
          'clientCrl',
          `holds several lists of ${shown(certificate)}: keep the newest`,
        );
      }
      return { certificate, serial: parse(certificate).tbsCertificate.serialNumber, list };
    });
    // Node reads one list from each text, and all certificates.
    this.tls = { ca: [ca], ...(blocks === undefined ? {} : { crl: blocks }) };
  }

  /** The identity of the client at the other end of `socket`, checked again for every request. */
  identityOf(socket: PeerSocket, now: number): CertificateIdentity | undefined {
    const { identity, periods } = this.#verdictOf(socket);
    return periods.some(({ from, until }) => from <= now && now <= until) ? identity : undefined;
  }

  /** Why a client that has sent a certificate has no identity by it; undefined: it has one, or has sent none. */
  problemOf(socket: PeerSocket, now: number): string | undefined {
    const { identity, problem } = this.#verdictOf(socket);
    if (problem !== undefined || identity === undefined) return problem;
    if (this.identityOf(socket, now) !== undefined) return undefined;
    return 'it, one of its authorities or one of their revocation lists is not valid at this time';
  }

  #verdictOf(socket: PeerSocket): Verdict {
    const known = this.#verdicts.get(socket);
    if (known !== undefined) return known;
    const verdict = this.#verify(socket);
    this.#verdicts.set(socket, verdict);
    return verdict;
  }

  #verify(socket: PeerSocket): Verdict {
    const certificate = socket.getPeerX509Certificate();
    // Before 24.21, Node calls a client authorized that has sent no certificate and resumes a session of TLS 1.3.
    if (certificate === undefined) return NO_CERTIFICATE;
    const refused = (problem: string): Verdict => ({ identity: undefined, periods: [], problem });
    if (!socket.authorized) return refused(`it was not verified: ${String(socket.authorizationError)}`);

    let parsed: Certificate;
    let names: string[];
    try {
      parsed = parse(certificate);
      names = certificateNames(parsed);
    } catch (error) {
      return refused(`it is not understood: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (names.length === 0) return refused('it has no name that can be used');
    const chains = this.#chains(certificate, []);
    if (chains.length === 0) {
      return refused('clientCa does not hold its issuer and all authorities above, up to the root');
    }
    const { serialNumber } = parsed.tbsCertificate;
    const periods = chains.flatMap((chain) => this.#period(certificate, serialNumber, chain) ?? []);
    if (periods.length === 0) {
      return refused('it or its authority is revoked, or clientCrl has no list of an authority');
    }
    return { identity: { kind: 'certificate', names }, periods, problem: undefined };
  }

  /**
   * Finds all chains from the issuer of a certificate to a root.
   *
   * @param below authorities in the chain so far: two that certify each other must not make an endless chain
   */
  #chains(certificate: X509Certificate, below: readonly Authority[]): Authority[][] {
    return this.#authorities
      .filter((issuer) => !below.includes(issuer) && isIssuedBy(certificate, issuer.certificate))
      .flatMap((issuer) => {
        const chain = [...below, issuer];
        return isIssuedBy(issuer.certificate, issuer.certificate)
          ? [chain]
          : this.#chains(issuer.certificate, chain);
      });
  }

  /** The time in which a whole chain is valid; undefined if something is revoked or a list is missing. */
  #period(
    certificate: X509Certificate,
    serial: ArrayBuffer,
    chain: readonly Authority[],
  ): Period | undefined {
    const certificates = [{ certificate, serial }, ...chain];
    const dates = certificates.map((one) => periodOf(one.certificate));
    if (!this.#hasLists) return common(dates);
    // The last is the root, which nobody can revoke.
    const lists = chain.map(({ list }, index) => {
      const issued = certificates[index]?.serial;
      return list === undefined || issued === undefined || list.isRevoked(issued) ? undefined : list;
    });
    return lists.every((list) => list !== undefined) ? common([...dates, ...lists]) : undefined;
  }
}

function readAuthority(block: string): X509Certificate {
  const certificate = read(block);
  if (!certificate.ca) {
    throw new ClientTrustError('clientCa', `holds ${shown(certificate)}, which is not an authority`);
  }
  return certificate;
}

function read(block: string): X509Certificate {
  try {
    return new X509Certificate(block);
  } catch (error) {
    throw new ClientTrustError('clientCa', 'holds a certificate that cannot be read', error);
  }
}

function readList(block: string, index: number, authorities: readonly X509Certificate[]): RevocationList {
  const refused = (why: string, cause?: unknown) =>
    new ClientTrustError('clientCrl', `cannot be used: list ${index + 1} ${why}`, cause);
  let list: RevocationList;
  try {
    list = new RevocationList(derOf(block));
  } catch (error) {
    throw refused(`is not understood: ${error instanceof Error ? error.message : String(error)}`, error);
  }
  if (!authorities.some((authority) => list.isSignedBy(authority))) {
    throw refused('is not signed by any authority in clientCa');
  }
  return list;
}

function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

function periodOf(certificate: X509Certificate): Period {
  return { from: certificate.validFromDate.getTime(), until: certificate.validToDate.getTime() };
}

function common(periods: readonly Period[]): Period {
  return {
    from: Math.max(...periods.map(({ from }) => from)),
    until: Math.min(...periods.map(({ until }) => until)),
  };
}

function parse(certificate: X509Certificate): Certificate {
  return AsnConvert.parse(certificate.raw, Certificate);
}

/** For a message about a file of the operator. */
function shown(certificate: X509Certificate): string {
  return JSON.stringify(certificate.subject.replaceAll('\n', ', '));
}

function pemBlocks(text: string, label: string): string[] {
  return text.match(new RegExp(`-----BEGIN ${label}-----[^-]*-----END ${label}-----`, 'g')) ?? [];
}

function derOf(block: string): Buffer {
  return Buffer.from(block.replace(/-----[^-]+-----/g, ''), 'base64');
}
