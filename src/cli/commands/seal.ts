/** `millpond seal` and `millpond unseal`. */
import type { Command } from 'commander';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addSealCommands(program: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  for (const [name, description, state] of [
    ['seal', 'send no more requests to upstreams, and close all connections to them', 'sealed'],
    ['unseal', 'send requests to upstreams again', 'unsealed'],
  ] as const) {
    withServerOptions(program.command(name))
      .description(`${description}; the next start goes by the configuration again`)
      .action(async (options: ServerOptions) => {
        await (await operationsClient(options, surroundings)).json('POST', `/${name}`);
        stdout.write(`${state} until the next start\n`);
      });
  }
}
