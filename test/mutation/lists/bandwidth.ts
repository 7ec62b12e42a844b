/** Mutations of the bandwidth limits, and of what keeps to them. */
import type { Mutation } from '../mutation.ts';

const LIMIT = 'src/upstream/limits/bandwidth.ts';
const SHARE = 'src/upstream/limits/bandwidth-share.ts';
const UNIT = ['test/unit/upstream/bandwidth.test.ts'];
const MIRROR = ['test/mirror/bandwidth.test.ts'];

export const bandwidth: readonly Mutation[] = [
  {
    file: LIMIT,
    replace: 'account.balance -= bytes;',
    by: 'account.balance -= bytes / 2;',
    promise: 'a limit of bandwidth is held',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'return pour(waiting, left, held / waiting.length);',
    by: 'return left;',
    promise: 'what slow upstreams leave of a bandwidth goes to the fetches that wait',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'const part = left / open.length;',
    by: 'const part = left;',
    promise: 'fetches share a bandwidth equally',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'if (client.size === 0) left = dealTo(background, left, rate);',
    by: 'if (true) left = dealTo(client, dealTo(background, left, rate), rate);',
    promise: 'the background has at most a tenth of a bandwidth while a client waits',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'BACKGROUND_PART * rate * Math.min(Math.max(0, elapsed), HELD_MS)',
    by: 'BACKGROUND_PART * left',
    promise: 'the background has no more of a bandwidth when the fetch of a client is slow',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'this.#empty(account);\n  }',
    by: '}',
    promise: 'a short fetch gives back its part of the bandwidth',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'if (elapsed >= 0 && elapsed < DEAL_MS) return;',
    by: 'if (elapsed < DEAL_MS) return;',
    promise: 'a clock that is turned back stops no fetch under a bandwidth limit',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'Math.max(this.#rest - bytes, -MAX_DEBT_MS * this.#rate)',
    by: 'this.#rest - bytes',
    promise: 'a large list does not keep blobs from their bandwidth',
    tests: UNIT,
  },
  {
    file: LIMIT,
    replace: 'Math.min(wanted, Math.max(this.#fairRate(account) * PIECE_MS, MIN_PIECE_BYTES))',
    by: 'wanted',
    promise: 'a small bandwidth comes in small pieces',
    tests: UNIT,
  },
  {
    file: SHARE,
    replace: 'bytes = Math.min(bytes, limit.available(account, wanted));',
    by: 'bytes = limit.available(account, wanted);',
    promise: 'both bandwidth limits hold, of the upstream and of the mirror',
    tests: UNIT,
  },
  {
    file: SHARE,
    replace: "if (this.#clients === 0) this.#setKind('background');",
    by: '',
    promise: 'a fetch that no client waits for any more leaves bandwidth to others',
    tests: UNIT,
  },
  {
    file: 'src/transfer/warmer.ts',
    replace: 'background: true,',
    by: '',
    promise: 'what is warmed leaves bandwidth to clients',
    tests: MIRROR,
  },
  {
    file: 'src/mirror/blobs/fill.ts',
    replace: 'this.#share?.addClient();',
    by: '',
    promise: 'a client that joins a warmed blob has the bandwidth of a client',
    tests: MIRROR,
  },
  {
    file: 'src/mirror/blobs/fill.ts',
    replace: 'const leave = () => this.#share?.removeClient();',
    by: 'const leave = () => undefined;',
    promise: 'a blob that its client has left is background work again',
    tests: MIRROR,
  },
  {
    file: 'src/mirror/blobs/fill.ts',
    replace: 'waitedMs: () => this.#share?.waitedMs ?? 0,',
    by: 'waitedMs: () => 0,',
    promise: 'a connection that the bandwidth limit holds is not slow',
    tests: MIRROR,
  },
  {
    file: 'src/mirror/blobs/blob-mirror.ts',
    replace: 'repository, digest, expectedSize, share, from',
    by: 'repository, digest, expectedSize, from',
    promise: 'a pull that bypasses the disk keeps to the bandwidth limit',
    tests: MIRROR,
  },
  {
    file: 'src/mirror/blobs/upstream-origin.ts',
    replace: 'for (let left = unwanted; left > 0; ) left -= await share.take(left, signal);',
    by: '',
    promise: 'bytes that are not needed count for the bandwidth limit',
    tests: MIRROR,
  },
  {
    file: 'src/upstream/client/client.ts',
    replace: 'this.#bandwidth?.spendAhead(body.length);',
    by: '',
    promise: 'manifests count for the bandwidth limit',
    tests: MIRROR,
  },
];
