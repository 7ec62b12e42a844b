/**
 * A scanner that speaks Harbor's pluggable scanner API, as its OpenAPI document says: it is strict about what it is sent,
 * pulls the image from the registry that it is told, and lets the client poll for the report.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { request as ask } from 'undici';
import { cleanUp } from './cleanup.ts';

const V1_1 = 'application/vnd.security.vulnerability.report; version=1.1';
const V1_0 = 'application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0';

interface ScanRequest {
  registry: { url: string; authorization: string };
  artifact: { repository: string; digest: string; mime_type: string };
}

export class FakeAdapter {
  /** Requests, such as `POST /api/v1/scan`. */
  readonly requests: string[] = [];
  readonly scans: ScanRequest[] = [];
  /** Report types of its metadata. */
  produces = [V1_0, V1_1];
  vulnerabilities: unknown = [];
  /** How often a report is "not yet ready". */
  pending = 1;
  /** Answers of its own, by request without the id. */
  readonly answers = new Map<string, (response: ServerResponse) => void>();
  /** Changes what is in a report. */
  change: (report: Record<string, unknown>) => void = () => undefined;
  url = '';
  readonly #server = createServer((request, response) => void this.#answer(request, response));

  static async start(t: Pick<TestContext, 'after'>): Promise<FakeAdapter> {
    const adapter = new FakeAdapter();
    await new Promise<void>((resolve) => adapter.#server.listen(0, '127.0.0.1', resolve));
    adapter.url = `http://127.0.0.1:${(adapter.#server.address() as AddressInfo).port}`;
    cleanUp(t, () => adapter.stop());
    return adapter;
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url = '' } = request;
    const name = `${method} ${url.replace(/\/scan\/[^/]+/, '/scan/ID')}`;
    this.requests.push(name);
    const own = this.answers.get(name);
    if (own !== undefined) return own(response);
    switch (name) {
      case 'GET /api/v1/metadata':
        return this.#metadata(response);
      case 'POST /api/v1/scan':
        return this.#accept(request, response);
      case 'GET /api/v1/scan/ID/report':
        return this.#report(request, response);
      default:
        response.writeHead(404).end();
    }
  }

  #metadata(response: ServerResponse): void {
    const capability = {
      type: 'vulnerability',
      consumes_mime_types: [
        'application/vnd.oci.image.manifest.v1+json',
        'application/vnd.docker.distribution.manifest.v2+json',
      ],
      produces_mime_types: this.produces,
    };
    const type = 'application/vnd.scanner.adapter.metadata+json; version=1.1';
    const scanner = { name: 'Fake', vendor: 'Test', version: '1' };
    send(response, 200, type, { scanner, capabilities: [capability], properties: {} });
  }

  async #accept(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const problem = 'application/vnd.scanner.adapter.error+json; version=1.0';
    if (request.headers['content-type'] !== 'application/vnd.scanner.adapter.scan.request+json; version=1.0')
      return send(response, 400, problem, { error: { message: 'content type' } });
    const scan = JSON.parse(Buffer.concat(chunks).toString()) as ScanRequest;
    try {
      await pull(scan);
    } catch (error) {
      return send(response, 500, problem, { error: { message: String(error) } });
    }
    const type = 'application/vnd.scanner.adapter.scan.response+json; version=1.0';
    send(response, 202, type, { id: `scan-${this.scans.push(scan) - 1}` });
  }

  #report({ url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const scan = this.scans[Number(/scan-(\d+)/.exec(url)?.[1])];
    if (scan === undefined) return void response.writeHead(404).end();
    if (this.pending > 0) {
      this.pending -= 1;
      return void response.writeHead(302, { location: url, 'refresh-after': '7' }).end();
    }
    const { accept = '' } = headers;
    if (!this.produces.includes(accept)) return void response.writeHead(501).end();
    const report = {
      ...{ generated_at: '2026-01-01T00:00:00Z', artifact: scan.artifact, severity: 'Unknown' },
      ...{ scanner: { name: 'Fake' }, vulnerabilities: this.vulnerabilities },
    };
    this.change(report);
    send(response, 200, accept, report);
  }
}

/** Everything of the image, as an adapter's scanner does. */
async function pull({ registry, artifact }: ScanRequest): Promise<void> {
  const get = async (path: string): Promise<Buffer> => {
    const reply = await ask(`${registry.url}/v2/${artifact.repository}/${path}`, {
      headers: { authorization: registry.authorization, accept: artifact.mime_type },
    });
    const body = Buffer.from(await reply.body.arrayBuffer());
    if (reply.statusCode !== 200) throw new Error(`${path}: ${reply.statusCode}`);
    return body;
  };
  const manifest = JSON.parse((await get(`manifests/${artifact.digest}`)).toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  for (const { digest } of [manifest.config, ...manifest.layers]) {
    const hash = createHash('sha256').update(await get(`blobs/${digest}`));
    if (`sha256:${hash.digest('hex')}` !== digest) throw new Error(`${digest} has other bytes`);
  }
}

function send(response: ServerResponse, status: number, type: string, body: unknown): void {
  response.writeHead(status, { 'content-type': type }).end(JSON.stringify(body));
}
