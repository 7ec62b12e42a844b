/** The commands and options of the program, as commander knows them: the one source of help, completion and man page. */
import type { Command } from 'commander';

export interface CommandEntry {
  /** `config check`; empty for the program itself. */
  path: string;
  description: string;
  /** `[options] <image...>` */
  usage: string;
  arguments: { name: string; description: string }[];
  options: { flags: string; long: string; takesValue: boolean; choices: string[]; description: string }[];
  subcommands: { name: string; description: string }[];
}

/** The program first, then each command before its subcommands. */
export function* commandTree(command: Command, path: string[] = []): Generator<CommandEntry> {
  const help = command.createHelp();
  const subcommands = help.visibleCommands(command).filter((each) => each.name() !== 'help');
  yield {
    path: path.join(' '),
    description: command.description(),
    usage: command.usage(),
    arguments: help
      .visibleArguments(command)
      .map((each) => ({ name: help.argumentTerm(each), description: help.argumentDescription(each) })),
    options: help.visibleOptions(command).map((option) => ({
      flags: help.optionTerm(option),
      long: option.long ?? option.short ?? '',
      takesValue: option.required || option.optional,
      choices: option.argChoices ?? [],
      description: help.optionDescription(option),
    })),
    subcommands: subcommands.map((each) => ({ name: each.name(), description: each.description() })),
  };
  for (const each of subcommands) yield* commandTree(each, [...path, each.name()]);
}
