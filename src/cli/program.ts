/** The command line: what can be typed, and what the process answers with. */
import { Command, CommanderError } from 'commander';
import { ConfigError } from '../config/errors.ts';
import { addConfigCommands } from './commands/config.ts';
import { addImageCommands } from './commands/images.ts';
import { addScrubCommand } from './commands/scrub.ts';
import { addSealCommands } from './commands/seal.ts';
import { addServeCommand } from './commands/serve.ts';
import { addStatusCommand } from './commands/status.ts';
import { addTransferCommands } from './commands/transfer.ts';
import { addWarmCommand } from './commands/warm.ts';
import type { Surroundings } from './io/surroundings.ts';

/** 0: done. 1: failed while running. 2: bad usage or configuration. */
export type ExitCode = 0 | 1 | 2;

/** Runs the command that `args` (without the program's own name) ask for; tells problems on stderr. Never rejects. */
export async function runCommandLine(args: readonly string[], surroundings: Surroundings): Promise<ExitCode> {
  try {
    await buildProgram(surroundings).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    // Commander has written its own messages by now; --help and --version come here too, with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof ConfigError) {
      surroundings.stderr.write(`${error.message}\n`);
      return 2;
    }
    surroundings.stderr.write(`millpond: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
}

function buildProgram(surroundings: Surroundings): Command {
  const { version, stdout, stderr } = surroundings;
  const program = new Command('millpond')
    .description('Pull-through caching mirror for container registries')
    // Commands take both of these over when they are added, so they come first.
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
    })
    .version(version);
  addServeCommand(program, surroundings);
  addConfigCommands(program, surroundings);
  addStatusCommand(program, surroundings);
  addImageCommands(program, surroundings);
  addWarmCommand(program, surroundings);
  addTransferCommands(program, surroundings);
  addScrubCommand(program, surroundings);
  addSealCommands(program, surroundings);
  return program;
}
