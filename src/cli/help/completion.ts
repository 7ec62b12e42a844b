/** Completion of commands and options in shells. Where neither fits, the shell completes file names. */
import type { CommandEntry } from './command-tree.ts';

export type Shell = 'bash' | 'zsh' | 'fish';

export function completionFor(shell: Shell, commands: readonly CommandEntry[]): string {
  return { bash, zsh, fish }[shell](commands);
}

function wordsOf({ subcommands, options }: CommandEntry): string[] {
  return [...subcommands.map(({ name }) => name), ...options.map(({ long }) => long)];
}

/** Finds out which command the words so far name. The same `case` does it in bash and in zsh. */
function walk(commands: readonly CommandEntry[]): string {
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => `'${path}'`);
  return `case "\${command:+$command }$word" in ${paths.join('|')}) command="\${command:+$command }$word" ;; esac`;
}

function wordsByCommand(commands: readonly CommandEntry[]): string {
  return commands.map((each) => `    '${each.path}') choices='${wordsOf(each).join(' ')}' ;;`).join('\n');
}

function bash(commands: readonly CommandEntry[]): string {
  return `# bash completion of millpond: source <(millpond completion bash)
_millpond() {
  local command= word choices=
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    ${walk(commands)}
  done
  case "$command" in
${wordsByCommand(commands)}
  esac
  COMPREPLY=($(compgen -W "$choices" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _millpond millpond
`;
}

function zsh(commands: readonly CommandEntry[]): string {
  return `#compdef millpond
# zsh completion of millpond: source <(millpond completion zsh)
_millpond() {
  local command= word choices=
  for word in "\${(@)words[2,CURRENT-1]}"; do
    ${walk(commands)}
  done
  case "$command" in
${wordsByCommand(commands)}
  esac
  compadd -- \${=choices} || _files
}
compdef _millpond millpond
`;
}

function fish(commands: readonly CommandEntry[]): string {
  const lines = commands.flatMap(({ path, subcommands, options }) => {
    const isHere = `-n 'test (__millpond_command) = "${path}"'`;
    return [
      ...subcommands.map(
        ({ name, description }) =>
          `complete -c millpond ${isHere} -f -a ${name} -d ${quoted(firstPart(description))}`,
      ),
      ...options.map(({ long, takesValue, choices, description }) => {
        const value = choices.length > 0 ? ` -x -a '${choices.join(' ')}'` : takesValue ? ' -r' : '';
        return `complete -c millpond ${isHere} -l ${long.replace(/^-+/, '')}${value} -d ${quoted(firstPart(description))}`;
      }),
    ];
  });
  const paths = commands.filter(({ path }) => path !== '').map(({ path }) => `'${path}'`);
  return `# fish completion of millpond: millpond completion fish | source
function __millpond_command
  set -l command
  for word in (commandline -opc)[2..]
    switch (string join ' ' $command $word)
      case ${paths.join(' ')}
        set -a command $word
    end
  end
  echo "$command"
end
${lines.join('\n')}
`;
}

/** A list of a shell has room for one line. */
function firstPart(description: string): string {
  return description.split(/[;:(]|\. /)[0]?.trim() ?? '';
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
