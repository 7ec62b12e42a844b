/**
 * The route from which a scanner pulls the image under decision, because no other route serves it yet.
 *
 * A listener of its own that speaks as much of the distribution API as a scanner needs: the ping, and GET and HEAD by
 * digest. There is one repository, and what it holds depends on the token: each scan has its own, and with it sees the one
 * manifest, its config and its layers.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { isLoopback } from '../../../../access/network/addresses.ts';
import type { Logger } from '../../../../telemetry/log.ts';
import type { Subject } from '../../part.ts';
import type { Patience } from '../limits/patience.ts';
import { Admission, type QuarantineRequest } from './admission.ts';
import type { QuarantineContent } from './content.ts';
import { refuse } from './replies.ts';

export interface RouteSettings {
  /** An IP address. */
  host: string;
  /** 0 takes any free one. */
  port: number;
  /** How the scanner reaches it, where that differs from host and port: `https://millpond.corp.example:8444`. */
  url?: string;
  /** PEM. Must be there unless `host` is loopback. */
  tls?: { cert: string; key: string };
}

/** The one repository. A name of ours, so that none of an upstream's gets into an argument or a report. */
const REPOSITORY = 'quarantine';
const CHALLENGE = 'Basic realm="quarantine"';
/** Goes with the token in Basic credentials, and means nothing. */
const USER = 'scan';
/** A scanner asks for a handful of layers at a time. */
const MAX_CONNECTIONS = 256;
const PATH = new RegExp(`^/v2/${REPOSITORY}/(manifests|blobs)/([^/?]+)$`);

/** What a scanner has to be told. */
export interface Admitted {
  /** Where the route is: `http://127.0.0.1:41235`. */
  url: string;
  repository: string;
  token: string;
  /** The value of an Authorization header that has the token. */
  authorization: string;
  admission: Admission;
}

export class QuarantineRoute implements AsyncDisposable {
  readonly #server: Server;
  readonly #logger: Logger;
  readonly #url: string;
  readonly #admissions = new Set<Admission>();

  private constructor(server: Server, url: string, logger: Logger) {
    this.#server = server;
    this.#logger = logger;
    this.#url = url;
    server.on('request', (request, response) => void this.#answer(request, response));
  }

  /** @throws {Error} the port is in use, or TLS is missing */
  static async open(settings: RouteSettings, logger: Logger): Promise<QuarantineRoute> {
    const { host, port, tls } = settings;
    if (tls === undefined && !isLoopback(host))
      throw new Error(`the scanner's route listens at ${host}, so it needs a certificate: set scan.tls`);
    const server = tls === undefined ? createServer() : createTlsServer(tls);
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, resolve);
    });
    server.on('error', (error) => logger.error({ err: error }, "the scanner's route has a problem"));
    const { port: bound } = server.address() as AddressInfo;
    const shown = host.includes(':') ? `[${host}]` : host;
    const url = settings.url ?? `${tls === undefined ? 'http' : 'https'}://${shown}:${bound}`;
    return new QuarantineRoute(server, url.replace(/\/$/, ''), logger);
  }

  /** Lets a scanner have `subject`, until the admission is disposed of. @param patience is told what the scanner waits for */
  admit(subject: Subject, content: QuarantineContent, patience: Patience): Admitted & Disposable {
    const admission = new Admission(subject, content, patience, (over) => this.#admissions.delete(over));
    this.#admissions.add(admission);
    const { token } = admission;
    const authorization = `Basic ${Buffer.from(`${USER}:${token}`).toString('base64')}`;
    return {
      ...{ url: this.#url, repository: REPOSITORY, token, authorization, admission },
      [Symbol.dispose]: () => admission[Symbol.dispose](),
    };
  }

  /** Ends all replies. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const admission of this.#admissions) admission[Symbol.dispose]();
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }

  /** Never rejects. */
  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#dispatch(request, response);
    } catch (error) {
      this.#logger.error({ err: error }, "a request at the scanner's route failed");
      response.destroy();
    }
  }

  async #dispatch(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    const admission = this.#admissionOf(request.headers.authorization);
    if (admission === undefined) {
      response.setHeader('www-authenticate', CHALLENGE);
      return refuse(response, 401, 'UNAUTHORIZED');
    }
    const { method, url: path = '' } = request;
    if (method !== 'GET' && method !== 'HEAD') return refuse(response, 405, 'UNSUPPORTED');
    if (path === '/v2/' || path === '/v2') {
      response.setHeader('content-type', 'application/json');
      return void response.end('{}');
    }
    const [, kind, digest] = PATH.exec(path) ?? [];
    if (digest === undefined) return refuse(response, 404, 'NAME_UNKNOWN');
    const asked: QuarantineRequest = { isHead: method === 'HEAD', start: startOf(request.headers.range) };
    if (kind === 'manifests') return admission.answerManifest(digest, asked, response);
    return admission.answerBlob(digest, asked, response);
  }

  #admissionOf(authorization: string | undefined): Admission | undefined {
    const token = tokenOf(authorization);
    if (token === undefined) return undefined;
    // All are compared, so that the time tells nothing.
    return [...this.#admissions].filter((admission) => admission.isProvedBy(token))[0];
  }
}

/** The token of Basic or Bearer credentials: go-containerregistry sends either, as its configuration says. */
function tokenOf(authorization: string | undefined): string | undefined {
  const [, scheme, value] = /^(Basic|Bearer) +(\S+)$/i.exec(authorization ?? '') ?? [];
  if (scheme === undefined || value === undefined) return undefined;
  if (scheme.toLowerCase() === 'bearer') return value;
  const credentials = Buffer.from(value, 'base64').toString('utf8');
  return credentials.startsWith(`${USER}:`) ? credentials.slice(USER.length + 1) : undefined;
}

/** Other forms of Range are not understood, and so the whole is sent (RFC 9110, 14.2). */
function startOf(range: string | undefined): number {
  return Number(/^bytes=(\d{1,15})-$/.exec(range ?? '')?.[1] ?? 0);
}
