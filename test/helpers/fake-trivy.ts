/**
 * A program with the command line of Trivy, that misbehaves as FAKE says. Started by test/helpers/fake-scanner.ts.
 *
 * Pulls the image as Trivy does: the credentials come from Docker's configuration, the reference from the last argument.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const { env, argv } = process;
const args = argv.slice(2);
const fake = env['FAKE'] ?? '';

function note(entry: Record<string, unknown>): void {
  appendFileSync(env['FAKE_LOG'] ?? '/dev/null', `${JSON.stringify(entry)}\n`);
}

function option(name: string): string | undefined {
  const at = args.indexOf(name);
  return at === -1 ? undefined : args[at + 1];
}

async function pull(reference: string): Promise<void> {
  const [, host = '', repository = '', digest = ''] = /^([^/]+)\/(.+)@(.+)$/.exec(reference) ?? [];
  const config = JSON.parse(readFileSync(join(env['DOCKER_CONFIG'] ?? '', 'config.json'), 'utf8')) as {
    auths: Record<string, { auth: string }>;
  };
  const headers = { authorization: `Basic ${config.auths[host]?.auth}` };
  const get = async (path: string) => {
    const reply = await fetch(`http://${host}/v2/${repository}/${path}`, { headers });
    if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
    return Buffer.from(await reply.arrayBuffer());
  };
  const manifest = await get(`manifests/${digest}`);
  const { config: image, layers } = JSON.parse(manifest.toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  for (const listed of [image, ...layers]) {
    const bytes = await get(`blobs/${listed.digest}`);
    const hash = createHash('sha256').update(bytes).digest('hex');
    if (`sha256:${hash}` !== listed.digest) throw new Error(`${listed.digest} has other bytes`);
  }
}

function hang(): void {
  // Not for ever: a test that is killed leaves us behind.
  setTimeout(() => process.exit(1), 120_000);
}

function report(reference: string): string {
  const named = fake === 'lie' ? reference.replace(/@.*/, `@sha256:${'0'.repeat(64)}`) : reference;
  return JSON.stringify({
    SchemaVersion: 2,
    ArtifactName: named,
    ArtifactType: 'container_image',
    Metadata: { OS: { Family: 'alpine', Name: '3.20' }, RepoDigests: [named] },
    Results: JSON.parse(env['FAKE_RESULTS'] ?? '[]') as unknown,
  });
}

async function scan(): Promise<void> {
  const reference = args.at(-1) ?? '';
  note({ scan: { args, env, cwd: process.cwd(), pid: process.pid } });
  if (fake === 'hang before pulling') return hang();
  await pull(reference);
  note({ pulled: true });
  switch (fake) {
    case 'ignore SIGTERM':
      process.on('SIGTERM', () => undefined);
      return hang();
    case 'hang':
      return hang();
    case 'grandchild': {
      // Holds our standard output open, and outlives us.
      const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 120000)'], { stdio: 'inherit' });
      note({ grandchild: child.pid });
      process.stdout.write(report(reference), () => process.exit(0));
      return;
    }
    case 'flood': {
      const more = () => void process.stdout.write(Buffer.alloc(1024 * 1024, '['), more);
      more();
      return;
    }
    case 'fill the disk':
      writeFileSync(join(env['TMPDIR'] ?? '', 'large'), Buffer.alloc(8 * 1024 * 1024, 'x'));
      return hang();
    case 'die':
      process.stderr.write(`${'x'.repeat(10_000)}the last words\n`);
      process.exit(1);
    case 'crash':
      process.kill(process.pid, 'SIGSEGV');
      return;
    case 'garbage':
      process.stdout.write('{ "SchemaVersion": 2');
      return;
    default:
      process.stdout.write(report(reference));
  }
}

const database = join(option('--cache-dir') ?? '', 'db');
/** It has one, unless `FAKE_DATABASE` says that it has only what is in its cache. */
const hasDatabase = () => env['FAKE_DATABASE'] === undefined || existsSync(join(database, 'trivy.db'));

if (args[0] === 'version') {
  if (fake === 'hang at once') hang();
  else {
    const more = hasDatabase() ? { VulnerabilityDB: { Version: 2 } } : {};
    process.stdout.write(JSON.stringify({ Version: '0.74.0', ...more }));
  }
} else if (args.includes('--download-db-only')) {
  const known = existsSync(join(database, 'metadata.json'));
  note({ update: 'vulnerabilities', known, pid: process.pid });
  if (env['FAKE_UPDATE'] === undefined) process.exitCode = 1;
  else if (!known || env['FAKE_UPDATE'] === 'newer') {
    await delay(1_500); // a download takes its time, in which others could begin
    mkdirSync(database, { recursive: true });
    for (const name of ['trivy.db', 'metadata.json']) writeFileSync(join(database, name), 'new');
  }
} else if (args.includes('--download-java-db-only')) {
  note({ update: 'java' });
} else await scan();
