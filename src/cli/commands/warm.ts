/** `millpond warm`. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { unreadable } from '../io/files.ts';
import {
  type PlatformOption,
  type ServerOptions,
  withPlatformOption,
  withServerOptions,
} from '../io/options.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface WarmOptions extends ServerOptions, PlatformOption {
  file?: string;
  referrers: boolean;
  json?: true;
}

export function addWarmCommand(program: Command, surroundings: Surroundings): void {
  const { cwd, stdout, stderr } = surroundings;
  withPlatformOption(withServerOptions(program.command('warm')), 'fetch')
    .description('fetch complete images before a client asks for them')
    .argument('[image...]', 'name of an image, such as docker.io/library/alpine:3.20')
    .option('--file <list>', 'also fetch the images in this file: one name per line, # begins a comment')
    .option('--no-referrers', 'do not fetch signatures, attestations and other referrers')
    .option('--json', 'print JSON')
    .action(async (names: string[], options: WarmOptions, command: Command) => {
      const listed = options.file === undefined ? [] : await readList(options.file, cwd);
      const images = [...names, ...listed];
      if (images.length === 0)
        command.error('error: no images given: name them, or give --file with a list of names');
      const body = { images, platforms: options.platform ?? [], referrers: options.referrers };
      const outcomes: unknown[] = [];
      const failed: string[] = [];
      const bars = new ProgressBars(stderr);
      try {
        for await (const { event, ...about } of (await operationsClient(options, surroundings)).events(
          '/warm',
          body,
        )) {
          const image = String(about['image']);
          if (event === 'progress') bars.update(image, Number(about['bytes']), Number(about['totalBytes']));
          if (event !== 'image') continue;
          bars.remove(image);
          outcomes.push(about);
          if (about['outcome'] === 'failed') failed.push(image);
          if (about['outcome'] === 'failed') stderr.write(`${image}: failed: ${String(about['reason'])}\n`);
          else if (!options.json) stdout.write(`${image}: ${described(about)}\n`);
        }
      } finally {
        bars.hide();
      }
      if (options.json) stdout.write(`${JSON.stringify(outcomes, undefined, 2)}\n`);
      if (failed.length > 0) throw new Error(`not complete: ${failed.join(', ')}`);
    });
}

function described(about: Record<string, unknown>): string {
  const [fetched, present] = ['fetchedBytes', 'presentBytes'].map((key) => humanSize(Number(about[key])));
  return `done, ${fetched} fetched, ${present} already cached`;
}

async function readList(file: string, cwd: string): Promise<string[]> {
  const text = await readFile(resolve(cwd, file), 'utf8').catch((error: unknown) => {
    throw unreadable(file, error);
  });
  return text
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
}
