/**
 * Looks at the configuration file once a second, and says when it has changed.
 *
 * Polled, not event-driven: events of a file system miss symlinks that change (Kubernetes) and network disks.
 */
import { stat } from 'node:fs/promises';
import type { Clock } from '../../clock.ts';

const LOOK_MS = 1_000;

/**
 * Calls `onChange` when the file differs from what it was at the call before, and was quiet for one look: an editor may
 * write it in several steps. A file that is missing for a moment, while it is replaced, is not a change.
 */
export async function watchConfigFile(
  path: string,
  clock: Clock,
  onChange: () => Promise<unknown>,
): Promise<Disposable> {
  let handled = await versionOf(path);
  let seen = handled;
  let looking = false;
  const look = async () => {
    const version = await versionOf(path);
    const isQuiet = version === seen;
    seen = version;
    if (version === undefined || !isQuiet || version === handled) return;
    handled = version;
    await onChange();
  };
  return clock.every(LOOK_MS, () => {
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  });
}

/** Follows symlinks, so that a link which leads elsewhere is a change, too. Undefined: it cannot be looked at now. */
async function versionOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
  } catch {
    return undefined; // the next look will see
  }
}
