/** `millpond seal` and `millpond unseal`. */
import type { Command } from 'commander';
import { OperationsClient, type ServerOption, withServerOption } from '../io/operations-client.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addSealCommands(program: Command, { stdout }: Surroundings): void {
  for (const [name, description, told] of [
    ['seal', 'ask no upstream from now on, and close every connection to one', 'sealed'],
    ['unseal', 'ask upstreams again', 'unsealed'],
  ] as const) {
    withServerOption(program.command(name))
      .description(`${description}; until the next start, which goes by the configuration`)
      .action(async (options: ServerOption) => {
        await new OperationsClient(options).json('POST', `/${name}`);
        stdout.write(`${told}, until the next start\n`);
      });
  }
}
