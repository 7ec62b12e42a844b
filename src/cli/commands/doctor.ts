/** `millpond doctor`. */
import type { Command } from 'commander';
import type { CheckResult, Outcome } from '../../app/doctor/diagnose.ts';
import { formatProblem } from '../../config/errors.ts';
import { type ConfigOption, chosenConfigFile, withConfigOption } from '../io/options.ts';
import type { Surroundings } from '../io/surroundings.ts';

export function addDoctorCommand(program: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withConfigOption(program.command('doctor'))
    .description(
      'check the configuration, the disk, the clock and the way to each upstream, within 30 s; needs no running mirror and spends no pull; ends with 1 if a check failed',
    )
    .option('--json', 'print JSON')
    .action(async (options: ConfigOption & { json?: true }) => {
      const results: CheckResult[] = [];
      for await (const result of examine(options, surroundings)) {
        results.push(result);
        if (options.json === undefined) stdout.write(line(result));
      }
      const counts = Object.fromEntries(
        (['ok', 'warning', 'failed', 'skipped'] as const).map((outcome) => [
          outcome,
          count(results, outcome),
        ]),
      ) as Record<Outcome, number>;
      const { ok, warning, failed, skipped } = counts;
      if (options.json !== undefined)
        stdout.write(`${JSON.stringify({ ok: failed === 0, checks: results }, undefined, 2)}\n`);
      else
        stdout.write(
          `${ok} ok, ${warning} warning${warning === 1 ? '' : 's'}, ${failed} failed, ${skipped} skipped\n`,
        );
      if (failed > 0) throw new Error(failed === 1 ? '1 check failed' : `${failed} checks failed`);
    });
}

async function* examine(options: ConfigOption, surroundings: Surroundings): AsyncGenerator<CheckResult> {
  const { cwd, environment, clock, version } = surroundings;
  const file = chosenConfigFile(options, surroundings);
  const { checkConfig } = await import('../../config/check/check.ts');
  // The check of the disk looks at the directory.
  const { config, warnings } = await checkConfig({ file, cwd, environment }, async () => undefined);
  const message = `${file ?? 'built-in defaults'}: no mistakes`;
  if (warnings.length === 0) yield { check: 'configuration', outcome: 'ok', message };
  for (const warning of warnings)
    yield {
      check: 'configuration',
      outcome: 'warning',
      message: `${formatProblem(warning)} [${warning.name}]`,
    };
  // Loaded only here: the other commands need no upstreams.
  const { diagnose } = await import('../../app/doctor/diagnose.ts');
  yield* diagnose(config, { clock, environment, version, user: process.getuid?.() });
}

function count(results: readonly CheckResult[], outcome: Outcome): number {
  return results.filter((result) => result.outcome === outcome).length;
}

function line({ check, upstream, outcome, message, advice }: CheckResult): string {
  const subject = upstream === undefined ? check : `${upstream} ${check}`;
  return `${outcome.padEnd(8)} ${subject}: ${message}${advice === undefined ? '' : `: ${advice}`}\n`;
}
