/** Starts the upstream program, and talks to its control port. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type RunningProcess, startProcess, until } from './processes.ts';
import type { Foreign, Throttle, UpstreamStats } from './upstream.ts';

interface Ports {
  port: number;
  foreignPort: number;
  control: number;
}

export class Upstream {
  readonly port: number;
  /** Of the registry that sends wrong bytes. */
  readonly foreignPort: number;
  readonly #control: number;
  readonly #running: RunningProcess;
  #seed = 0;

  private constructor(ports: Ports, running: RunningProcess) {
    this.port = ports.port;
    this.foreignPort = ports.foreignPort;
    this.#control = ports.control;
    this.#running = running;
  }

  static async start(directory: string): Promise<Upstream> {
    const logFile = join(directory, 'upstream.log');
    const running = startProcess(process.execPath, [join(import.meta.dirname, 'upstream.ts')], logFile);
    const said = () => readFileSync(logFile, 'utf8');
    await until('the upstream', running, async () => said().includes('\n'));
    return new Upstream(JSON.parse(said()) as Ports, running);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** A blob that nobody has seen yet. */
  async newBlob(size: number): Promise<string> {
    this.#seed += 1;
    const seed = `${process.pid} ${Date.now()} ${this.#seed}`;
    return (await this.#command<{ digest: string }>('noise', { size, seed })).digest;
  }

  async addBlob(bytes: Buffer): Promise<string> {
    return (await this.#command<{ digest: string }>('content', { base64: bytes.toString('base64') })).digest;
  }

  async addManifest(name: string, tag: string, mediaType: string, manifest: unknown): Promise<string> {
    const base64 = Buffer.from(JSON.stringify(manifest)).toString('base64');
    return (await this.#command<{ digest: string }>('content', { name, tag, mediaType, base64 })).digest;
  }

  throttle(throttle: Throttle): Promise<unknown> {
    return this.#command('throttle', throttle);
  }

  /** How the foreign registry sends its wrong bytes from now on. */
  setForeign(manner: Foreign): Promise<unknown> {
    return this.#command('foreign', manner);
  }

  reset(): Promise<unknown> {
    return this.#command('reset', {});
  }

  stats(): Promise<UpstreamStats> {
    return this.#command('stats', {});
  }

  stop(): Promise<void> {
    return this.#running.stop();
  }

  async #command<T>(name: string, body: unknown): Promise<T> {
    const url = `http://127.0.0.1:${this.#control}/${name}`;
    const reply = await fetch(url, { method: 'POST', body: JSON.stringify(body) });
    if (!reply.ok) throw new Error(`the upstream refused ${name}: ${await reply.text()}`);
    return (await reply.json()) as T;
  }
}
