/** The options that several commands share, and what they leave for the action of a command. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Surroundings } from './surroundings.ts';

export const DEFAULT_SERVER = 'http://127.0.0.1:5001';

export interface ConfigOption {
  config?: string;
}

export function withConfigOption(command: Command): Command {
  return command.option(
    '-c, --config <file>',
    'configuration file (default: $MILLPOND_CONFIG; if that is not set, the built-in defaults)',
  );
}

/** The configuration file to use; `undefined` means the built-in defaults. */
export function chosenConfigFile(options: ConfigOption, { environment }: Surroundings): string | undefined {
  return options.config ?? (environment['MILLPOND_CONFIG'] || undefined);
}

export interface ServerOptions extends ConfigOption {
  /** A URL without a slash at its end, or `unix:` and the path of a socket. */
  server?: string;
  token?: string;
  ca?: string;
}

/** Also takes `host:port`. @returns undefined if it is no address */
export function parseServer(text: string): string | undefined {
  if (/^unix:./.test(text)) return text;
  const url = /^(\[[\da-fA-F:.]+\]|[\w.-]+):\d+$/.test(text) ? `http://${text}` : text;
  return /^https?:$/.test(URL.parse(url)?.protocol ?? '') ? url.replace(/\/+$/, '') : undefined;
}

/** How to reach a running mirror, and the token that it may ask for. */
export function withServerOptions(command: Command): Command {
  return command
    .option(
      '--server <url>',
      `operations listener of the running mirror: host:port, http://, https:// or unix:/path/of/socket (default: $MILLPOND_SERVER, else that of the configuration, else ${DEFAULT_SERVER})`,
      (text) => {
        const server = parseServer(text);
        if (server !== undefined) return server;
        const forms = `host:port, an http:// or https:// URL, such as ${DEFAULT_SERVER}, or unix: and a path`;
        throw new InvalidArgumentError(`It must be ${forms}.`);
      },
    )
    .option('-c, --config <file>', 'configuration file of the mirror, which names the listener')
    .option(
      '--token <token>',
      'token of the mirror (default: $MILLPOND_TOKEN, which is better: everybody on this machine can read a command line)',
    )
    .option('--ca <file>', 'PEM file of authorities to trust for https:// in addition to the usual ones');
}

export interface PlatformOption {
  platform?: string[];
}

/** @param verb what the command does with the platforms: `fetch` */
export function withPlatformOption(command: Command, verb: string): Command {
  return command.option(
    '--platform <os/arch[/variant]>',
    `${verb} only this platform of images that have several; may be repeated`,
    collect,
  );
}

/** Gathers the values of an option that may be repeated. Without one, the option is `undefined`. */
export function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}
