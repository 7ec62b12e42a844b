/** Commands as a user types them, against a mirror of a test. */
import type { TextOutput } from '../../src/cli/io/surroundings.ts';
import { type ExitCode, runCommandLine } from '../../src/cli/program.ts';
import { systemClock } from '../../src/clock.ts';
import type { TestMirror } from './start-mirror.ts';

export interface CommandOutcome {
  exitCode: ExitCode;
  stdout: string;
  stderr: string;
}

/**
 * @param cwd where relative paths start from
 * @param terminal where both outputs go to, too
 */
export async function runMillpond(
  mirror: Pick<TestMirror, 'operationsUrl'>,
  args: readonly string[],
  cwd = '/',
  terminal?: TextOutput,
  environment: Record<string, string> = {},
): Promise<CommandOutcome> {
  const written = { stdout: '', stderr: '' };
  const exitCode = await runCommandLine([...args, '--server', mirror.operationsUrl], {
    version: '1.2.3',
    environment,
    cwd,
    clock: systemClock,
    stdout: terminal ?? { write: (text) => void (written.stdout += text) },
    stderr: terminal ?? { write: (text) => void (written.stderr += text) },
    serve: async () => undefined,
  });
  return { exitCode, ...written };
}
