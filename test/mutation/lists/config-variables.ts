import type { Mutation } from '../mutation.ts';

const ENVIRONMENT = ['test/unit/config/environment.test.ts'];
const LISTENERS = ['test/unit/config/listeners.test.ts'];
const PROBLEMS = ['test/unit/config/problems.test.ts'];
const WARNINGS = ['test/contract/config-warnings.test.ts'];
const PROGRAM = ['test/contract/program.test.ts'];
const OWN_DIRECTORY = ['test/unit/cache/own-directory.test.ts'];
const RECOVERY = ['test/unit/cache/recovery.test.ts'];

/** What variables set, and where a mistake of theirs is reported. */
export const variables: readonly Mutation[] = [
  {
    file: 'src/config/environment/names.ts',
    replace: "(entry[1] ?? '') !== ''",
    by: 'entry[1] !== undefined',
    promise: 'an empty variable is as good as none',
    tests: ENVIRONMENT,
  },
  {
    file: 'src/config/environment/names.ts',
    replace: '!OF_THE_COMMAND_LINE.has(name) && !OF_KUBERNETES',
    by: '!OF_THE_COMMAND_LINE.has(name) && !/^$/',
    promise: 'a Service of Kubernetes called millpond keeps no server from starting',
    tests: ENVIRONMENT,
  },
  {
    file: 'src/config/environment/overrides.ts',
    replace: 'return { ...map, [key]: withValue(map[key], rest, value) };',
    by: 'map[key] = withValue(map[key], rest, value); return map;',
    promise: 'a variable changes only its own key where two sections are one by an alias',
    tests: ENVIRONMENT,
  },
  {
    file: 'src/config/environment/overrides.ts',
    replace: 'if (!isRaw(data ?? {})) return data;',
    by: '',
    promise: 'a variable hides no mistake of the file',
    tests: ENVIRONMENT,
  },
  {
    file: 'src/config/environment/overrides.ts',
    replace: 'if (variable === undefined) problems.push({ name, message: whyUnknown(name, variables) });',
    by: 'if (variable === undefined) continue;',
    promise: 'a misspelt variable is an error',
    tests: ENVIRONMENT,
  },
  {
    file: 'src/config/sources.ts',
    replace: 'return this.#overrides.knownByPath.get(formatPath(path));',
    by: 'return undefined;',
    promise: 'what is missing in a section that variables make is told by its variable',
    tests: ENVIRONMENT,
  },
  {
    file: 'src/cli/commands/serve.ts',
    replace: 'loadConfig({ file: path, cwd, environment })',
    by: 'loadConfig({ file: path, cwd, environment: {} })',
    promise: 'the server takes its variables',
    tests: PROGRAM,
  },
  {
    file: 'src/config/listener-issues.ts',
    replace: "hosts[0] === hosts[1] || hosts.includes('::')",
    by: 'hosts[0] === hosts[1]',
    promise: 'an address beside all addresses is refused',
    tests: LISTENERS,
  },
  {
    file: 'src/config/listener-issues.ts',
    replace: 'a.port !== b.port || a.port === 0',
    by: 'a.port !== b.port',
    promise: 'two listeners may both have any free port',
    tests: LISTENERS,
  },
  {
    file: 'src/config/references.ts',
    replace: "name !== '' && !isOfShell(name)",
    by: "name !== ''",
    promise: 'a path with ~ is refused, and makes no folder called ~',
    tests: PROBLEMS,
  },
];

/** What config check warns of, and what silences it. */
export const warnings: readonly Mutation[] = [
  {
    file: 'src/config/check/patterns.ts',
    replace: 'imagePattern(pattern).test(other)',
    by: 'pattern === other',
    promise: 'an entry that matches more than an earlier one is not warned of, one that matches less is',
    tests: WARNINGS,
  },
  {
    file: 'src/config/check/upstream-warnings.ts',
    replace: "protocol === 'http:' && !isThisMachine",
    by: "protocol === 'http:' && isThisMachine",
    promise: 'credentials over plain HTTP to another machine are warned of',
    tests: WARNINGS,
  },
  {
    file: 'src/config/check/value-warnings.ts',
    replace: '![...upstreams.keys()].every(isPinned)',
    by: '![...upstreams.keys()].some(isPinned)',
    promise: 'pins that leave one upstream are not warned of',
    tests: WARNINGS,
  },
  {
    file: 'src/config/check/file-system-warnings.ts',
    replace: 'return fileSystemOf(dirname(folder));',
    by: 'throw error;',
    promise: 'the file system of a cache directory that is not there yet is looked at',
    tests: WARNINGS,
  },
  {
    file: 'src/config/check/allowed.ts',
    replace: "if (token === '\\u{2}' || token === '\\u{18}' || token === '\\u{1f}') continue;",
    by: '',
    promise: 'a comment that allows nothing is reported where it is',
    tests: WARNINGS,
  },
  {
    file: 'src/config/check/check.ts',
    replace: 'placed.filter(({ name }) => !silenced.has(name))',
    by: 'placed.filter(() => silenced.size === 0)',
    promise: 'a comment silences its own warning, and no other',
    tests: WARNINGS,
  },
  {
    file: 'src/cli/commands/config.ts',
    replace: 'if (options.strict && warnings.length > 0)',
    by: 'if (false)',
    promise: 'with --strict, a warning ends with 2',
    tests: WARNINGS,
  },
  {
    file: 'src/cache/store/own-directory.ts',
    replace: 'names.filter((name) => !HARMLESS.has(name))',
    by: 'names.filter(() => false)',
    promise: 'somebody’s folder is not taken for a cache',
    tests: OWN_DIRECTORY,
  },
  {
    file: 'src/cache/catalog/recovery.ts',
    replace: 'await requireOwn(directory, fs);',
    by: '',
    promise: 'a start changes nothing in somebody’s folder',
    tests: RECOVERY,
  },
];
