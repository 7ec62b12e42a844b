/** Warnings that the values of the configuration are enough for. Pure. */
import { isAbsolute } from 'node:path';
import { formatListen, type ListenAddress } from '../fields/addresses.ts';
import type { Config } from '../schema.ts';
import { covers } from './patterns.ts';
import { type Warning, warning } from './warning.ts';

/** Leaves 5 s for the request itself. */
const LONGEST_WAIT_MS = 25_000;

/** @param directory `cache.directory` as it is written; undefined if it is the default */
export function valueWarnings(config: Config, directory: string | undefined): Warning[] {
  return [
    ...exposedListeners(config),
    ...fleetInTheClear(config),
    ...relativeDirectory(directory),
    ...pinsOfEverything(config),
    ...longPolicyWait(config),
  ];
}

function exposedListeners({ access, server, operations }: Config): Warning[] {
  if (access !== undefined) return [];
  const sides = [
    { side: 'server', listen: server.listen, may: 'pull everything' },
    { side: 'operations', listen: operations.listen, may: 'see and remove everything in the cache' },
  ];
  return sides.flatMap(({ side, listen, may }) => {
    if ('socket' in listen || !isEveryAddress(listen)) return [];
    const what = `${formatListen(listen)} is every address of this machine, and there is no access control: everybody who reaches it may ${may}`;
    return [warning('no-access-control', [side, 'listen'], `${what}; add access, or listen on one address`)];
  });
}

function fleetInTheClear({ fleet }: Config): Warning[] {
  if (fleet?.coordinator === undefined || fleet.tls !== undefined || !isEveryAddress(fleet.listen)) return [];
  const what = `${formatListen(fleet.listen)} is every address of this machine, and nodes send each other layers in the clear; add fleet.tls, or listen on an address of a private network`;
  return [warning('fleet-without-tls', ['fleet', 'listen'], what)];
}

function isEveryAddress({ host }: ListenAddress): boolean {
  return /^(?:0\.0\.0\.0|[:0]+)$/.test(host);
}

function relativeDirectory(directory: string | undefined): Warning[] {
  if (directory === undefined || isAbsolute(directory)) return [];
  const what = 'is relative: another working directory means another, empty cache; write the whole path';
  return [warning('relative-directory', ['cache', 'directory'], what)];
}

/** The sizes of pinned images are not known here. But where all are pinned, maxSize is reached sooner or later. */
function pinsOfEverything({ cache, upstreams }: Config): Warning[] {
  const isPinned = (host: string) => cache.pin.some((pattern) => covers(pattern, `${host}/*:*`));
  if (upstreams.size === 0 || ![...upstreams.keys()].every(isPinned)) return [];
  const what = 'pins every image, so nothing can be evicted: when maxSize is reached, nothing more is kept';
  return [warning('pins-everything', ['cache', 'pin'], what)];
}

function longPolicyWait({ policyWait }: Config): Warning[] {
  if (policyWait <= LONGEST_WAIT_MS) return [];
  const what =
    'is longer than 25s: containerd gives up after 30 s without headers, and goes on to the registry itself';
  return [warning('long-policy-wait', ['policyWait'], what)];
}
