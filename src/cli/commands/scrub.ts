/** `millpond scrub`. */
import type { Command } from 'commander';
import { OperationsClient, type ServerOption, withServerOption } from '../io/operations-client.ts';
import { humanSize, ProgressBars } from '../io/output.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addScrubCommand(program: Command, { stdout, stderr }: Surroundings): void {
  withServerOption(program.command('scrub'))
    .description('read and check all that is stored, and remove what is damaged')
    .action(async (options: ServerOption) => {
      const bars = new ProgressBars(stderr);
      try {
        for await (const event of new OperationsClient(options).events('/scrub')) {
          if (event.event === 'progress')
            bars.update('scrub', Number(event['bytes']), Number(event['totalBytes']));
          else bars.hide();
          if (event.event === 'damaged') stdout.write(`${String(event['digest'])}: damaged, removed\n`);
          if (event.event !== 'done') continue;
          const [read, damaged, adopted] = ['objects', 'damaged', 'adopted'].map((key) => Number(event[key]));
          stdout.write(
            `${read} objects checked (${humanSize(Number(event['bytes']))}), ${damaged} damaged, ${adopted} found without a record\n`,
          );
        }
      } finally {
        bars.hide();
      }
    });
}
