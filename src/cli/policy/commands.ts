/** `millpond explain`, `policy admit`, `policy admissions` and `policy test`. */
import { type Command, InvalidArgumentError } from 'commander';
import { parseDay } from '../../config/fields/days.ts';
import { loadConfig } from '../../config/load.ts';
import {
  type ConfigOption,
  chosenConfigFile,
  type ServerOptions,
  withConfigOption,
  withServerOptions,
} from '../io/options.ts';
import { table } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface JsonOption {
  json?: true;
}

/** The API's answer. */
interface Explanation {
  image: string;
  digest?: string;
  policies: PolicyAnswer[];
}

interface PolicyAnswer {
  policy: string;
  mode: 'enforce' | 'audit';
  allowed: boolean;
  reason?: string;
  advice?: string;
  until?: string;
}

interface Admission {
  image: string;
  policies: string[];
  reason: string;
  until: string;
  by: string;
}

interface AdmitOptions extends ServerOptions, JsonOption {
  policy: string[];
  reason: string;
  until: number;
}

export function addPolicyCommands(program: Command, surroundings: Surroundings): void {
  addExplainCommand(program, surroundings);
  const policy = program
    .command('policy')
    .description('let an image in by hand, list what was let in, or try policies without a running mirror');
  addAdmitCommand(policy, surroundings);
  addAdmissionsCommand(policy, surroundings);
  addTestCommand(policy, surroundings);
}

function addExplainCommand(program: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withServerOptions(program.command('explain'))
    .description('say for each policy whether it lets a cached image in, and if not, why and what to do')
    .argument('<image>', 'image name, such as docker.io/library/alpine:3.20')
    .option('--json', 'print JSON')
    .action(async (image: string, options: ServerOptions & JsonOption) => {
      const client = await operationsClient(options, surroundings);
      const found = (await client.json('GET', `/explain?image=${encodeURIComponent(image)}`)) as Explanation;
      stdout.write(options.json ? `${JSON.stringify(found, undefined, 2)}\n` : explanationText(found));
    });
}

function explanationText({ image, digest, policies }: Explanation): string {
  const refusing = policies.filter(({ allowed, mode }) => !allowed && mode === 'enforce');
  const name = digest === undefined ? image : `${image} (${digest})`;
  const headline =
    refusing.length === 0
      ? `${name} is let in${policies.length === 0 ? ': no policy is about it' : ''}`
      : `${name} is refused by ${refusing.map(({ policy }) => policy).join(', ')}`;
  const rows = policies.map(({ policy, mode, allowed, reason, advice, until }) => [
    policy,
    mode,
    allowed ? 'yes' : 'no',
    until ?? '',
    reason === undefined ? '' : `${reason}; ${advice ?? ''}`,
  ]);
  const head = ['POLICY', 'MODE', 'LETS IN', 'UNTIL', 'WHY NOT'];
  return `${headline}\n${rows.length === 0 ? '' : `\n${table([head, ...rows])}`}`;
}

function addAdmitCommand(policy: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withServerOptions(policy.command('admit'))
    .description('let one image in past policies, never past a deny list; it is logged')
    .argument('<image>', 'image by its digest, such as docker.io/library/alpine@sha256:…')
    .requiredOption('--policy <name...>', 'policies to lift for it')
    .requiredOption('--reason <text>', 'why; for those who read this later')
    .requiredOption('--until <day>', 'last day on which it holds, in UTC, such as 2027-12-31', day)
    .option('--json', 'print JSON')
    .action(async (image: string, { policy: policies, reason, until, ...options }: AdmitOptions) => {
      const client = await operationsClient(options, surroundings);
      const body = { image, policies, reason, until: new Date(until).toISOString() };
      const admitted = (await client.json('POST', '/policy/admit', body)) as Admission;
      stdout.write(
        options.json
          ? `${JSON.stringify(admitted, undefined, 2)}\n`
          : `${admitted.image} is let in past ${admitted.policies.join(', ')} until ${admitted.until}\n`,
      );
    });
}

function addAdmissionsCommand(policy: Command, surroundings: Surroundings): void {
  const { stdout } = surroundings;
  withServerOptions(policy.command('admissions'))
    .description('list what was let in by hand and still holds')
    .option('--json', 'print JSON')
    .action(async (options: ServerOptions & JsonOption) => {
      const client = await operationsClient(options, surroundings);
      const answer = (await client.json('GET', '/policy/admissions')) as { admissions: Admission[] };
      const rows = answer.admissions.map(({ image, policies, until, by, reason }) => [
        ...[image, policies.join(','), until, by, reason],
      ]);
      stdout.write(
        options.json
          ? `${JSON.stringify(answer, undefined, 2)}\n`
          : table([['IMAGE', 'POLICIES', 'UNTIL', 'BY', 'REASON'], ...rows]),
      );
    });
}

function addTestCommand(policy: Command, surroundings: Surroundings): void {
  const { stdout, cwd, environment } = surroundings;
  withConfigOption(policy.command('test'))
    .description(
      'say what would become of images, without a running mirror; asks upstreams, and begins with an empty cache, so minimumAge knows nothing older; ends with 1 if an image is refused',
    )
    .argument('<image...>', 'image names, such as docker.io/library/alpine:3.20')
    .option('--json', 'print JSON')
    .action(async (images: string[], options: ConfigOption & JsonOption) => {
      const config = await loadConfig({ file: chosenConfigFile(options, surroundings), cwd, environment });
      // Loaded only here: the other commands need no mirror of their own.
      const { testImages } = await import('./test-images.ts');
      const results = await testImages(config, images, surroundings);
      if (options.json) stdout.write(`${JSON.stringify(results, undefined, 2)}\n`);
      else
        for (const { image, outcome, message } of results)
          stdout.write(`${outcome}  ${image}${message === undefined ? '' : `: ${message}`}\n`);
      const failed = results.filter(({ outcome }) => outcome !== 'let in').length;
      if (failed > 0)
        throw new Error(failed === 1 ? '1 image does not come in' : `${failed} images do not come in`);
    });
}

function day(text: string): number {
  const end = parseDay(text);
  if (end === undefined) throw new InvalidArgumentError('It must be a day such as 2027-12-31.');
  return end;
}
