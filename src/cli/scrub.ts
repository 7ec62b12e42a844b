/** `millpond scrub`. */
import type { Command } from 'commander';
import type { Surroundings } from './command.ts';
import { OperationsClient, type ServerOption, withServerOption } from './operations-client.ts';
import { humanSize, ProgressBar } from './output.ts';

export function addScrubCommand(program: Command, { stdout, stderr }: Surroundings): void {
  withServerOption(program.command('scrub'))
    .description('read and check all that is stored, and remove what is damaged')
    .action(async (options: ServerOption) => {
      const bar = new ProgressBar(stderr, 'scrub');
      const damaged: string[] = [];
      let done: Record<string, unknown> = {};
      try {
        for await (const event of new OperationsClient(options).events('/scrub')) {
          if (event.event === 'progress') bar.update(Number(event['bytes']), Number(event['totalBytes']));
          else if (event.event === 'damaged') damaged.push(String(event['digest']));
          else done = event;
        }
      } finally {
        bar.stop(); // before anything is written where it stands
      }
      for (const digest of damaged) stdout.write(`${digest}: damaged, removed\n`);
      const [objects, bytes, adopted] = ['objects', 'bytes', 'adopted'].map((key) => Number(done[key]));
      stdout.write(
        `${objects} objects checked (${humanSize(bytes ?? 0)}), ${damaged.length} damaged, ${adopted} found without a record\n`,
      );
    });
}
