/** The command line: its commands and its exit codes. */
import { Command, CommanderError } from 'commander';
import { ConfigError } from '../config/errors.ts';
import { addAccessCommands } from './commands/access.ts';
import { addConfigCommands } from './commands/config.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addImageCommands } from './commands/images.ts';
import { addReloadCommand } from './commands/reload.ts';
import { addSealCommands } from './commands/seal.ts';
import { addServeCommand } from './commands/serve.ts';
import { addStatusCommand } from './commands/status.ts';
import { addPinCommands, addScrubCommand } from './commands/store.ts';
import { addTokenCommands } from './commands/token.ts';
import { addTransferCommands } from './commands/transfer.ts';
import { addWarmCommand } from './commands/warm.ts';
import { addHelpCommands } from './help/commands.ts';
import type { Surroundings } from './io/surroundings.ts';
import { addPolicyCommands } from './policy/commands.ts';

/** 0: done. 1: failed. 2: wrong usage or configuration. */
export type ExitCode = 0 | 1 | 2;

/**
 * Runs a command, and writes its errors to stderr. Never rejects.
 *
 * @param args without the name of the program
 */
export async function runCommandLine(args: readonly string[], surroundings: Surroundings): Promise<ExitCode> {
  try {
    await buildProgram(surroundings).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    // Writes nothing: commander has written its message. --help and --version end here, too, with exit code 0.
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
    // Comes before the commands: each command copies these settings when it is added.
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
    })
    .version(version);
  addServeCommand(program, surroundings);
  addConfigCommands(program, surroundings);
  addAccessCommands(program, surroundings);
  addDoctorCommand(program, surroundings);
  addStatusCommand(program, surroundings);
  addImageCommands(program, surroundings);
  addWarmCommand(program, surroundings);
  addTransferCommands(program, surroundings);
  addScrubCommand(program, surroundings);
  addReloadCommand(program, surroundings);
  addPinCommands(program, surroundings);
  addSealCommands(program, surroundings);
  addTokenCommands(program, surroundings);
  addPolicyCommands(program, surroundings);
  addHelpCommands(program, surroundings);
  return program;
}
