/** `millpond export` and `millpond import`. */
import { createReadStream } from 'node:fs';
import { access, open, rename, rm, stat } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Digest } from '../../oci/digest.ts';
import { readLayout } from '../../transfer/layout/layout-reader.ts';
import { unreadable } from '../io/files.ts';
import {
  collect,
  type PlatformOption,
  type ServerOptions,
  withPlatformOption,
  withServerOptions,
} from '../io/options.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface ExportOptions extends ServerOptions, PlatformOption {
  output: string;
  since?: string[];
}

export function addTransferCommands(program: Command, surroundings: Surroundings): void {
  addExportCommand(program, surroundings);
  addImportCommand(program, surroundings);
}

function addExportCommand(program: Command, surroundings: Surroundings): void {
  const { cwd, stdout, stderr } = surroundings;
  withPlatformOption(withServerOptions(program.command('export')), 'write')
    .description('write cached images and their signatures into one OCI image layout tar')
    .argument('<image...>', 'name of an image, such as docker.io/library/alpine:3.20')
    .requiredOption('-o, --output <file>', 'file to write')
    .option('--since <file>', 'leave out the content of this earlier export; may be repeated', collect)
    .action(async (images: string[], options: ExportOptions) => {
      const since: Digest[] = [];
      for (const file of options.since ?? []) since.push(...(await digestsIn(file, cwd)));
      const body = { images, platforms: options.platform ?? [], since };
      const reply = await (await operationsClient(options, surroundings)).download('/export', body);
      const bars = new ProgressBars(stderr);
      try {
        const total = Number(reply.headers['millpond-content-bytes']);
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

function addImportCommand(program: Command, surroundings: Surroundings): void {
  const { cwd, stdout, stderr } = surroundings;
  withServerOptions(program.command('import'))
    .description('add the images of an OCI image layout tar to the cache, after verifying every digest')
    .argument('<file>', 'archive by millpond export, docker save (25 or newer), podman save or skopeo')
    .option(
      '--name <image>',
      'name for the one image of an archive that does not name it in full, such as docker.io/library/alpine:3.20',
    )
    .option(
      '--verify',
      'fail for images that policies do not let in; without it they are decided when they are asked for',
    )
    .action(async (file: string, options: ServerOptions & { name?: string; verify?: true }) => {
      const path = resolve(cwd, file);
      const { size } = await stat(path).catch((error: unknown) => {
        throw unreadable(file, error);
      });
      const query = new URLSearchParams({
        ...(options.name === undefined ? {} : { name: options.name }),
        ...(options.verify === undefined ? {} : { verify: 'true' }),
      });
      const failed: string[] = [];
      const bars = new ProgressBars(stderr);
      try {
        const client = await operationsClient(options, surroundings);
        for await (const event of client.upload(
          `/import?${query.toString()}`,
          createReadStream(path),
          size,
        )) {
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
  return `${stored} stored, ${present} already cached`;
}

/**
 * The digests of all blobs in an archive. Reads it to its end, so that an archive that was cut is refused: an increment on
 * top of it would lack blobs.
 */
async function digestsIn(file: string, cwd: string): Promise<Digest[]> {
  const path = resolve(cwd, file);
  await access(path).catch((error: unknown) => {
    throw unreadable(file, error);
  });
  const digests: Digest[] = [];
  const sink = { blob: async (digest: Digest) => void digests.push(digest) };
  try {
    await readLayout(createReadStream(path), sink);
  } catch (error) {
    throw new Error(`${file}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return digests;
}

/**
 * Writes the body of a reply into a file. The file appears under its name only when it is complete.
 *
 * @returns the number of bytes
 */
async function save(reply: IncomingMessage, path: string, onBytes: (bytes: number) => void): Promise<number> {
  const partial = `${path}.partial`;
  try {
    const file = await open(partial, 'w');
    let bytes = 0;
    try {
      for await (const chunk of reply as AsyncIterable<Buffer>) {
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
    throw new Error(`${path} was not written: ${whyUnwritten(error)}`, { cause: error });
  }
}

function whyUnwritten(error: unknown): string {
  // Recognises the error of a body that ends too early.
  if (error instanceof Error && 'code' in error && error.code === 'ECONNRESET')
    return 'the mirror stopped sending it, and its log says why';
  return error instanceof Error ? error.message : String(error);
}
