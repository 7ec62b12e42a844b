/**
 * Gets JSON documents from an issuer, within limits: it is an outside server, and anyone with a JWT can make us ask it.
 */
import { readFile } from 'node:fs/promises';
import type { Dispatcher } from 'undici';
import { issuerUrlProblem } from './issuer-url.ts';

const MAX_BYTES = 1024 * 1024;
const MAX_REDIRECTS = 5;

/**
 * Sends one request as undici's `request` does, and does not follow redirects. Sets proxy, authorities (`ca`) and
 * `User-Agent`.
 */
export type SendRequest = (
  url: URL,
  options: { method: 'GET'; headers: Record<string, string>; signal: AbortSignal },
) => Promise<Dispatcher.ResponseData>;

export interface IssuerHttpSettings {
  /** `http://` is allowed for hosts that are not loopback. */
  insecure: boolean;
  /** A file with a Bearer token, which Kubernetes requires. Read each time, because it is rotated. */
  tokenFile?: string | undefined;
  /** Only its origin gets the token. Other URLs come from a document, and may lead to anyone. */
  configuredUrl: string;
}

export class IssuerHttp {
  readonly #settings: IssuerHttpSettings;
  readonly #send: SendRequest;
  readonly #tokenOrigin: string;

  constructor(settings: IssuerHttpSettings, send: SendRequest) {
    this.#settings = settings;
    this.#send = send;
    this.#tokenOrigin = new URL(settings.configuredUrl).origin;
  }

  /**
   * The JSON document at `start`: at most 1 MiB, and from no other origin, whatever redirects say.
   *
   * @throws {Error} it cannot be fetched; the message has no secret in it
   */
  async get(start: URL, signal: AbortSignal): Promise<unknown> {
    const problem = issuerUrlProblem(start.href, this.#settings.insecure);
    if (problem !== undefined) throw new Error(`${shown(start)} ${problem}`);
    const headers = await this.#headers(start);
    let url = start;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects += 1) {
      const reply = await this.#send(url, { method: 'GET', headers, signal });
      if (reply.statusCode === 200) return parse(await read(reply.body, url), url);
      // Handles later errors, because nobody listens any more and an unhandled error would end the process.
      reply.body.on('error', () => undefined).destroy();
      const target = redirectTarget(reply, url);
      if (target === undefined)
        throw new Error(`${shown(url)} answered ${reply.statusCode}${this.#hint(url)}`);
      if (target.origin !== start.origin)
        throw new Error(`${shown(url)} redirects to another host, ${target.host}`);
      url = target;
    }
    throw new Error(`${shown(start)} redirects more than ${MAX_REDIRECTS} times`);
  }

  async #headers({ origin }: URL): Promise<Record<string, string>> {
    const headers = { Accept: 'application/json', 'Accept-Encoding': 'identity' };
    const { tokenFile } = this.#settings;
    if (tokenFile === undefined || origin !== this.#tokenOrigin) return headers;
    return { ...headers, Authorization: `Bearer ${(await readFile(tokenFile, 'utf8')).trim()}` };
  }

  #hint(url: URL): string {
    return this.#settings.tokenFile === undefined || url.origin === this.#tokenOrigin
      ? ''
      : `; it was not sent the token, because it is on another host than the issuer: if it should be, set jwksUrl: ${shown(url)}`;
  }
}

/** For messages: without the query, which may hold a secret. */
function shown({ origin, pathname }: URL): string {
  return origin + pathname;
}

function redirectTarget({ statusCode, headers }: Dispatcher.ResponseData, base: URL): URL | undefined {
  const { location } = headers;
  if (![301, 302, 303, 307, 308].includes(statusCode) || typeof location !== 'string') return undefined;
  return URL.parse(location, base.href) ?? undefined;
}

async function read(body: Dispatcher.ResponseData['body'], url: URL): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    // Leaving the loop destroys the body, so an endless one stops here.
    if (length > MAX_BYTES) throw new Error(`the answer of ${shown(url)} is longer than ${MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length).toString('utf8');
}

function parse(text: string, url: URL): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`the answer of ${shown(url)} is not JSON`); // not quoted: its author would choose what we log
  }
}
