/** Where each value of a configuration comes from: the file, a variable, or a default. */

import type { Overrides } from './environment/overrides.ts';
import type { ConfigProblem } from './errors.ts';
import { formatPath, type Issue } from './file/raw.ts';
import type { Position, YamlSource } from './file/source.ts';

const DEFAULTS = 'built-in defaults';

export class ConfigSources {
  /** The file as its user named it; `undefined`: there is none. */
  readonly file: string | undefined;
  readonly yaml: YamlSource;
  readonly #overrides: Overrides | undefined;

  /** @param overrides undefined: no variable sets a key */
  constructor(file: string | undefined, yaml: YamlSource, overrides: Overrides | undefined) {
    this.file = file;
    this.yaml = yaml;
    this.#overrides = overrides;
  }

  /** The file, or what stands in its place, for a message. */
  get name(): string {
    return this.file ?? DEFAULTS;
  }

  /** The variables that set a key, in alphabetical order. */
  get variables(): string[] {
    return [...(this.#overrides?.nameByPath.values() ?? [])];
  }

  /** Mistakes that no value shows: in the YAML, and in the names of variables. */
  get problems(): ConfigProblem[] {
    const ofFile = this.yaml.problems.map(({ message, ...position }) => this.#inFile(position, [], message));
    return [
      ...(this.#overrides?.problems ?? []).map(({ name, message }) => inEnvironment(name, message)),
      ...ofFile,
    ];
  }

  /** Gives an issue its line in the file, or its variable. */
  problem({ path, part, message }: Issue): ConfigProblem {
    const variable = this.#variableOf(path);
    return variable === undefined
      ? this.#inFile(this.yaml.locate(path, part), path, message)
      : inEnvironment(variable, message);
  }

  /** Whether a value is in the file or in a variable, and is not a default. */
  isWritten(path: Issue['path']): boolean {
    return this.#nameOf(path) !== undefined || this.yaml.find(path, 'value') !== undefined;
  }

  /** `millpond.yaml:12`, the name of a variable, or `default`. */
  originOf(path: Issue['path']): string {
    const line = this.yaml.find(path, 'key')?.line;
    // A secret is printed in place of the map that says where it is, which a variable may have made.
    const variable = this.#nameOf(path) ?? this.#namesBelow(path)[0];
    return variable ?? (line === undefined ? 'default' : `${this.name}:${line}`);
  }

  #nameOf(path: Issue['path']): string | undefined {
    return this.#overrides?.nameByPath.get(formatPath(path));
  }

  /** The variables that set a key in this section. */
  #namesBelow(section: Issue['path']): string[] {
    return [...(this.#overrides?.nameByPath ?? [])]
      .filter(([key]) => key.startsWith(`${formatPath(section)}.`))
      .map(([, name]) => name);
  }

  /** The variable that sets the value, or would set it if it is missing in a section that only variables have made. */
  #variableOf(path: Issue['path']): string | undefined {
    const set = this.#nameOf(path);
    if (set !== undefined || this.#overrides === undefined) return set;
    const section = path.slice(0, -1);
    if (this.#namesBelow(section).length === 0 || this.yaml.find(section, 'key') !== undefined)
      return undefined;
    return this.#overrides.knownByPath.get(formatPath(path));
  }

  #inFile({ line, col }: Position, path: Issue['path'], message: string): ConfigProblem {
    return { file: this.name, line, col, path: formatPath(path), message };
  }
}

function inEnvironment(variable: string, message: string): ConfigProblem {
  return { file: 'environment', line: 0, col: 0, path: variable, message };
}
