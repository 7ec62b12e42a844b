/** `millpond export` and `millpond import`. */
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Digest } from '../../oci/digest.ts';
import { readLayout } from '../../transfer/layout/layout-reader.ts';
import { OperationsClient, type ServerOption, withServerOption } from '../io/operations-client.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { withPlatformOption } from './warm.ts';

interface ExportOptions extends ServerOption {
  output: string;
  platform: string[];
  since: string[];
}

export function addTransferCommands(program: Command, surroundings: Surroundings): void {
  addExportCommand(program, surroundings);
  addImportCommand(program, surroundings);
}

function addExportCommand(program: Command, { cwd, stdout, stderr }: Surroundings): void {
  withPlatformOption(withServerOption(program.command('export')))
    .description('write cached images into one OCI image layout tar, with their signatures')
    .argument('<image...>', 'such as docker.io/library/alpine:3.20')
    .requiredOption('-o, --output <file>', 'where it is written')
    .option(
      '--since <file>',
      'leave out what this earlier export holds; repeatable',
      (file: string, before: string[]) => [...before, file],
      [],
    )
    .action(async (images: string[], options: ExportOptions) => {
      const since: Digest[] = [];
      for (const file of options.since) since.push(...(await digestsIn(resolve(cwd, file))));
      const body = { images, platforms: options.platform, since };
      const reply = await new OperationsClient(options).download('/export', body);
      const bars = new ProgressBars(stderr);
      try {
        const total = Number(reply.headers.get('Millpond-Content-Bytes'));
        const bytes = await save(reply, resolve(cwd, options.output), (done) =>
          bars.update('export', done, total),
        );
        bars.hide();
        stdout.write(`${options.output}: ${humanSize(bytes)} written\n`);
      } finally {
        bars.hide();
      }
    });
}

function addImportCommand(program: Command, { cwd, stdout, stderr }: Surroundings): void {
  withServerOption(program.command('import'))
    .description('take in the images of an OCI image layout tar, every digest verified')
    .argument('<file>', 'from millpond export, docker save (25 or newer), podman save or skopeo')
    .option('--name <image>', 'name of the one image in it, such as docker.io/library/alpine:3.20')
    .action(async (file: string, options: ServerOption & { name?: string }) => {
      const path = resolve(cwd, file);
      const { size } = await stat(path);
      const query =
        options.name === undefined ? '' : `?${new URLSearchParams({ name: options.name }).toString()}`;
      const failed: string[] = [];
      const bars = new ProgressBars(stderr);
      try {
        const client = new OperationsClient(options);
        for await (const event of client.upload(`/import${query}`, createReadStream(path), size)) {
          const image = String(event['image']);
          if (event.event === 'progress') bars.update('import', Number(event['bytes']), size);
          else bars.hide();
          if (event.event === 'done') stdout.write(`${file}: ${totals(event)}\n`);
          if (event.event !== 'image') continue;
          if (event['outcome'] === 'done') stdout.write(`${image}: imported, ${String(event['digest'])}\n`);
          else {
            failed.push(image);
            stderr.write(`${image}: failed: ${String(event['reason'])}\n`);
          }
        }
      } finally {
        bars.hide();
      }
      if (failed.length > 0) throw new Error(`not imported: ${failed.join(', ')}`);
    });
}

function totals(event: Record<string, unknown>): string {
  const [stored, present] = ['storedBytes', 'presentBytes'].map((key) => humanSize(Number(event[key])));
  return `${stored} stored, ${present} here already`;
}

/** The blobs of an archive, which is read to its end: one that was cut would make the next one useless. */
async function digestsIn(file: string): Promise<Digest[]> {
  const digests: Digest[] = [];
  const sink = { blob: async (digest: Digest) => void digests.push(digest) };
  try {
    await readLayout(createReadStream(file), sink);
  } catch (error) {
    throw new Error(`${file}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return digests;
}

/** The file is there when all of it is. @returns its bytes */
async function save(reply: Response, path: string, onBytes: (bytes: number) => void): Promise<number> {
  const partial = `${path}.partial`;
  try {
    const file = await open(partial, 'w');
    let bytes = 0;
    try {
      for await (const chunk of reply.body ?? []) {
        await file.appendFile(chunk);
        bytes += chunk.length;
        onBytes(bytes);
      }
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
    return bytes;
  } catch (error) {
    await rm(partial, { force: true });
    // That is what fetch throws when a body ends too early.
    const isCut = error instanceof TypeError;
    const reason = isCut ? 'the mirror broke off, and its log says why' : String(error);
    throw new Error(`${path} was not written: ${reason}`, { cause: error });
  }
}
