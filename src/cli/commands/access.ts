/** `millpond access explain`. */
import type { Command } from 'commander';
import { loadConfig } from '../../config/load.ts';
import { type ConfigOption, chosenConfigFile, collect, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface ExplainOptions extends ConfigOption {
  as?: string[];
  network?: string;
  claim?: string[];
  pull?: string;
  /** True: the mirror as a whole. */
  operate?: string | true;
  observe?: string | true;
  json?: true;
}

export function addAccessCommands(program: Command, surroundings: Surroundings): void {
  const { cwd, environment, stdout } = surroundings;
  const access = program.command('access').description('look into the rules of access control');
  withConfigOption(access.command('explain'))
    .description(
      'say which rule of the configuration decides, and why each other rule does not; ends with 0 if it is allowed, with 1 if not',
    )
    .option(
      '--as <who>',
      'user:NAME, token:NAME, oidc:NAME or certificate:DNS:NAME; may be repeated (default: anonymous)',
      collect,
    )
    .option('--network <address>', 'IP address of the client')
    .option(
      '--claim <name=value>',
      'claim in the token of oidc:NAME; name:=JSON if it is not a text',
      collect,
    )
    .option('--pull <image>', 'ask for the right to pull this image')
    .option('--operate [image]', 'ask for the right to change this image; without one, for operate: true')
    .option('--observe [image]', 'ask for the right to see this image; without one, for observe: true')
    .option('--json', 'print JSON')
    .action(async (options: ExplainOptions, command: Command) => {
      const { pull, operate, observe, as = [], claim = [], network } = options;
      const asked = Object.entries({ pull, operate, observe }).flatMap(([right, image]) =>
        image === undefined ? [] : [{ right: right as 'pull' | 'operate' | 'observe', image }],
      );
      const [question] = asked;
      if (question === undefined || asked.length > 1)
        command.error('error: give one of --pull, --operate and --observe');
      const { right, image } = question;
      const config = await loadConfig({
        file: chosenConfigFile(options, surroundings),
        ...{ cwd, environment, ignoreReferences: true },
      });
      // Loaded only here: other commands need no access control.
      const { explainAccess, UsageError } = await import('../access/explain.ts');
      try {
        const query = { as, network, claims: claim, right, image: image === true ? undefined : image };
        const { allowed, text, json } = explainAccess(config, query);
        stdout.write(options.json ? `${JSON.stringify(json, undefined, 2)}\n` : text);
        if (!allowed) throw new Error('refused: no rule allows it');
      } catch (error) {
        if (error instanceof UsageError) command.error(`error: ${error.message}`);
        throw error;
      }
    });
}
