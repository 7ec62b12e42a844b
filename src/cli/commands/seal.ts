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
      .option('--fleet', `${name} all nodes of the fleet, until somebody changes it again`)
      .action(async (options: ServerOptions & { fleet?: true }) => {
        const client = await operationsClient(options, surroundings);
        if (options.fleet === true) {
          await client.json('POST', `/${name}?scope=fleet`);
          stdout.write(`the fleet is ${state}\n`);
          return;
        }
        const { sealed } = (await client.json('POST', `/${name}`)) as { sealed: boolean };
        stdout.write(
          sealed && name === 'unseal'
            ? 'still sealed, by the fleet: millpond unseal --fleet unseals all nodes\n'
            : `${state} until the next start\n`,
        );
      });
  }
}
