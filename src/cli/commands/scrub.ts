/** `millpond scrub`. */
import type { Command } from 'commander';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';

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
