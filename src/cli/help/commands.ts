/** `millpond completion` and `millpond man`. */
import { Argument, type Command } from 'commander';
import type { Surroundings } from '../io/surroundings.ts';
import type { Shell } from './completion.ts';

const SHELL_NAMES = ['bash', 'zsh', 'fish'];

/** Add them last: they know only the commands that are there. */
export function addHelpCommands(program: Command, { stdout, version }: Surroundings): void {
  program
    .command('completion')
    .description(
      'print the completion for a shell: source <(millpond completion bash), or millpond completion fish | source',
    )
    .addArgument(new Argument('<shell>').choices(SHELL_NAMES))
    .action(async (shell: Shell) => {
      const [{ completionFor }, { commandTree }] = await Promise.all([
        import('./completion.ts'),
        import('./command-tree.ts'),
      ]);
      stdout.write(completionFor(shell, [...commandTree(program)]));
    });

  program
    .command('man')
    .description('print the man page: millpond man > /usr/local/share/man/man1/millpond.1')
    .action(async () => {
      const [{ manPage }, { commandTree }] = await Promise.all([
        import('./man.ts'),
        import('./command-tree.ts'),
      ]);
      stdout.write(manPage([...commandTree(program)], version));
    });
}
