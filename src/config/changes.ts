/** What differs between two configurations, and what of it a running mirror can take over. */
import { isDeepStrictEqual } from 'node:util';
import { printable } from './print.ts';
import type { Config } from './schema.ts';

export interface ConfigChange {
  /** Keys joined by dots, such as `upstreams.ghcr.io.freshness.tagTtl`. */
  key: string;
  /** As in a file, with secrets redacted; undefined: there was none, or there is none any more. */
  from: unknown;
  to: unknown;
}

/** Keys that a reload takes over, with all that is below them. All others wait for a restart. */
const RELOADED = [
  'upstreams',
  'defaultUpstream',
  'server.maxUpstreamBandwidth',
  'access.rules',
  'policies',
  'policyWait',
  'notify',
  'retryRefused',
  'log.level',
  'warm',
];

export function isReloaded({ key }: ConfigChange): boolean {
  return RELOADED.some((each) => key === each || key.startsWith(`${each}.`));
}

/** Compares secrets by where they are, not by their value: the files that hold them are read again by themselves. */
export function changesBetween(before: Config, now: Config): ConfigChange[] {
  return [...differences('', printable(before), printable(now))];
}

/** A list counts as one value: a rule that moves up would otherwise look like a change of every rule. */
function* differences(key: string, from: unknown, to: unknown): Generator<ConfigChange> {
  if (isDeepStrictEqual(from, to)) return;
  if (!isSection(from) || !isSection(to)) {
    yield { key, from, to };
    return;
  }
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)]))
    yield* differences(key === '' ? name : `${key}.${name}`, from[name], to[name]);
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
