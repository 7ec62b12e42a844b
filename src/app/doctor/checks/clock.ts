/** Compares the clock of this machine with those of the upstreams. Pure. */
import type { Finding } from './result.ts';

/** Milliseconds. With more, tokens and certificates begin or end at the wrong time. */
const TOLERATED_MS = 30_000;

/**
 * @param skews how far the clock of this machine is ahead of each upstream that said the time, in milliseconds
 */
export function checkClock(skews: readonly number[]): Finding {
  const [first, ...others] = skews;
  if (first === undefined)
    return { outcome: 'skipped', message: 'not checked, because no upstream said what time it is' };
  // The smallest one: an upstream whose own clock is wrong says nothing about ours.
  const skew = others.reduce((least, one) => (Math.abs(one) < Math.abs(least) ? one : least), first);
  const seconds = Math.round(Math.abs(skew) / 1000);
  if (Math.abs(skew) <= TOLERATED_MS)
    return { outcome: 'ok', message: `the clock agrees with that of the upstreams (${seconds} s apart)` };
  return {
    outcome: 'warning',
    message: `the clock is ${seconds} s ${skew > 0 ? 'ahead of' : 'behind'} that of every upstream that answered`,
    advice:
      'set it, for example with NTP: tokens and certificates are valid by the clock, and tags are fresh by it',
  };
}
