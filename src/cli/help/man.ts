/** The man page, in the language of man(7). */
import type { CommandEntry } from './command-tree.ts';

export function manPage(commands: readonly CommandEntry[], version: string): string {
  const [program, ...others] = commands;
  const lines = [
    `.TH MILLPOND 1 "" "Millpond ${version}"`,
    '.SH NAME',
    `millpond \\- ${text(program?.description ?? '')}`,
    '.SH SYNOPSIS',
    '.B millpond',
    '.I command',
    '[options]',
    '.SH COMMANDS',
    ...others.filter(({ subcommands }) => subcommands.length === 0).flatMap(section),
    '.SH ENVIRONMENT',
    ...VARIABLES.flatMap(([name, meaning]) => ['.TP', `.B ${name}`, text(meaning)]),
    '.SH EXIT STATUS',
    ...EXIT_CODES.flatMap(([code, meaning]) => ['.TP', `.B ${code}`, text(meaning)]),
  ];
  return `${lines.join('\n')}\n`;
}

const VARIABLES = [
  ['MILLPOND_CONFIG', 'Configuration file, if --config is not given.'],
  ['MILLPOND_SERVER', 'Operations listener of the running mirror, if --server is not given.'],
  ['MILLPOND_TOKEN', 'Token for the running mirror, if --token is not given.'],
  [
    'MILLPOND_...',
    'Each key of the configuration with one value, such as MILLPOND_CACHE_MAX_SIZE. It comes before the file.',
  ],
] as const;

const EXIT_CODES = [
  ['0', 'Done.'],
  ['1', 'Failed. Each failure is named on standard error.'],
  ['2', 'Wrong usage, or a configuration with mistakes.'],
] as const;

function section({ path, usage, description, arguments: names, options }: CommandEntry): string[] {
  return [
    `.SS ${text(`millpond ${path} ${usage}`)}`,
    text(`${description.charAt(0).toUpperCase()}${description.slice(1)}.`),
    ...names.flatMap(({ name, description: about }) => ['.TP', `.I ${text(name)}`, text(about)]),
    ...options.flatMap(({ flags, description: about }) => ['.TP', `.B ${text(flags)}`, text(about)]),
  ];
}

/** A backslash, a hyphen, and a dot or an apostrophe at the beginning of a line mean something to man(7). */
function text(plain: string): string {
  return plain
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1');
}
