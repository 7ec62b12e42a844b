/** `millpond warm`. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { OperationsClient, type ServerOption, withServerOption } from '../io/operations-client.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface WarmOptions extends ServerOption {
  file?: string;
  platform: string[];
  referrers: boolean;
  json?: true;
}

export function addWarmCommand(program: Command, { cwd, stdout, stderr }: Surroundings): void {
  withPlatformOption(withServerOption(program.command('warm')))
    .description('fetch images completely, before anybody asks for them')
    .argument('[image...]', 'such as docker.io/library/alpine:3.20')
    .option('--file <list>', 'file with an image a line; # begins a comment')
    .option('--no-referrers', 'leave signatures, attestations and other referrers out')
    .option('--json', 'as JSON')
    .action(async (names: string[], options: WarmOptions, command: Command) => {
      const listed = options.file === undefined ? [] : await readList(resolve(cwd, options.file));
      const images = [...names, ...listed];
      if (images.length === 0) command.error('error: name images, or a --file that does');
      const body = { images, platforms: options.platform, referrers: options.referrers };
      const outcomes: unknown[] = [];
      const failed: string[] = [];
      const bars = new ProgressBars(stderr);
      try {
        for await (const { event, ...about } of new OperationsClient(options).events('/warm', body)) {
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

/** Leaves `platform`, a list, for a command's action. */
export function withPlatformOption(command: Command): Command {
  return command.option(
    '--platform <os/arch[/variant]>',
    'of images for several platforms only this one; repeatable',
    (platform: string, before: string[]) => [...before, platform],
    [],
  );
}

function described(about: Record<string, unknown>): string {
  const [fetched, present] = ['fetchedBytes', 'presentBytes'].map((key) => humanSize(Number(about[key])));
  return `done, ${fetched} fetched, ${present} here already`;
}

async function readList(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8');
  return text
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
}
