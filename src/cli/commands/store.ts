/** What is done with stored content: `millpond scrub`, `pin`, `unpin` and `pins`. */
import type { Command } from 'commander';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { writeTable } from '../io/tables.ts';

interface Pins {
  pins: { pattern: string; source: string }[];
}

export function addScrubCommand(program: Command, surroundings: Surroundings): void {
  const { stdout, stderr } = surroundings;
  withServerOptions(program.command('scrub'))
    .description(
      'read and verify all stored content; remove what is damaged, add to the index what is missing from it',
    )
    .action(async (options: ServerOptions) => {
      const bars = new ProgressBars(stderr);
      try {
        for await (const event of (await operationsClient(options, surroundings)).events('/scrub')) {
          if (event.event === 'progress')
            bars.update('scrub', Number(event['bytes']), Number(event['totalBytes']));
          else bars.hide();
          if (event.event === 'damaged') stdout.write(`${String(event['digest'])}: damaged and removed\n`);
          if (event.event !== 'done') continue;
          const [checked, damaged, adopted] = ['objects', 'damaged', 'adopted'].map((key) =>
            Number(event[key]),
          );
          stdout.write(
            `${checked} objects checked (${humanSize(Number(event['bytes']))}): ${damaged} damaged, ${adopted} missing from the index\n`,
          );
        }
      } finally {
        bars.hide();
      }
    });
}

export function addPinCommands(program: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withServerOptions(program.command('pin'))
    .description('never evict the images that match a pattern, also after a restart')
    .argument('<pattern...>', 'of names such as docker.io/library/alpine:3.20; * matches any text')
    .action(async (patterns: string[], options: ServerOptions) => {
      const client = await operationsClient(options, surroundings);
      for (const pattern of patterns) {
        await client.json('POST', '/pins', { pattern });
        stdout.write(`${pattern}: pinned\n`);
      }
    });

  withServerOptions(program.command('unpin'))
    .description('let images be evicted again that millpond pin has pinned')
    .argument('<pattern...>', 'as millpond pins lists it')
    .action(async (patterns: string[], options: ServerOptions) => {
      const client = await operationsClient(options, surroundings);
      for (const pattern of patterns) {
        await client.json('DELETE', `/pins/${pattern.split('/').map(encodeURIComponent).join('/')}`);
        stdout.write(`${pattern}: not pinned any more\n`);
      }
    });

  withServerOptions(program.command('pins'))
    .description('list what is pinned, by the configuration and by millpond pin')
    .option('--json', 'print JSON')
    .action(async ({ json, ...options }: ServerOptions & { json?: true }) => {
      const client = await operationsClient(options, surroundings);
      const { pins } = (await client.json('GET', '/pins')) as Pins;
      if (json) stdout.write(`${JSON.stringify(pins, undefined, 2)}\n`);
      else
        writeTable(
          stdout,
          ['PATTERN', 'PINNED BY'],
          pins.map(({ pattern, source }) => [pattern, source]),
        );
    });
}
