import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Ingest, IngestWriter } from '../../src/cache/ingest/ingest.ts';
import { Spool } from '../../src/cache/ingest/spool.ts';
import type { ContentReader } from '../../src/cache/store/content-store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { FailingFileSystem } from '../helpers/failing-file-system.ts';
import { noise } from '../helpers/images.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const SIZE = 400_000;
const bytes = noise(SIZE, 'ingest');

/** What can happen while a blob comes in. */
type Step =
  | { do: 'write'; segment: number; length: number }
  | { do: 'join' }
  | { do: 'read'; follower: number; length: number }
  | { do: 'leave'; follower: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('write'),
      segment: fc.nat(3),
      length: fc.integer({ min: 1, max: 90_000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('join') }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('read'),
      follower: fc.nat(5),
      length: fc.integer({ min: 1, max: 90_000 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('leave'), follower: fc.nat(5) }) },
) as fc.Arbitrary<Step>;
const run = fc.record({
  steps: fc.array(step, { maxLength: 60 }),
  how: fc.constantFrom('right' as const, 'wrong' as const, 'cut' as const),
});

/** A client: what it asked for, how far it is, and what it got. */
class Follower {
  readonly got: Buffer[] = [];
  position = 0;
  pending: Promise<void> | undefined;
  failed = false;
  readonly #reader: ContentReader;

  constructor(reader: ContentReader) {
    this.#reader = reader;
  }

  /** Reads in the background, one piece at a time, as a reply does. */
  read(length: number): void {
    if (this.pending !== undefined || this.failed || this.position === SIZE) return;
    const target = Buffer.alloc(length);
    this.pending = this.#reader.read(target, this.position, SIZE).then(
      (count) => {
        this.got.push(target.subarray(0, count));
        this.position += count;
        this.pending = undefined;
      },
      () => {
        this.failed = true;
        this.pending = undefined;
      },
    );
  }

  async drain(): Promise<void> {
    while (this.position < SIZE && !this.failed) {
      this.read(50_000);
      await this.pending;
    }
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}

test('whoever joins, leaves, reads slowly or fast, in whatever order segments come: a right blob arrives whole, any other never', async (t) => {
  const directory = await tempDir(t);
  const disk = new FailingFileSystem();
  const spool = new Spool(directory, disk.fileSystem);
  await spool.sweep();
  await fc.assert(
    fc.asyncProperty(run, async ({ steps, how }) => {
      const digest = digestOf(how === 'wrong' ? Buffer.from('something else') : bytes);
      const ingest = await spool.open(digest, 'quay.io');
      ingest.setSize(SIZE);
      const segments = [0, 1, 2, 3].map((at) => new Segment(ingest, (SIZE / 4) * at));
      const followers: Follower[] = [];
      for (const one of steps) await take(one, ingest, segments, followers);

      if (how !== 'cut') for (const segment of segments) await segment.finish();
      const failure = await ingest.verify().then(
        () => undefined,
        (error: Error) => error,
      );
      assert.equal(failure === undefined, how === 'right');
      if (failure !== undefined) ingest.abort(failure);
      await Promise.all(followers.map((follower) => follower.drain()));
      for (const follower of followers) {
        const got = Buffer.concat(follower.got);
        if (how !== 'wrong')
          assert.ok(got.equals(bytes.subarray(0, got.length)), 'every byte is in its place');
        assert.equal(
          got.length === SIZE,
          how === 'right' && !follower.failed,
          'whole if and only if it is right',
        );
        await follower.close();
      }
      await spool.retire(ingest, { resumable: false });
      await ingest.end();
      assert.equal(disk.openFiles, 0);
    }),
    { numRuns: 60 },
  );
});

async function take(one: Step, ingest: Ingest, segments: Segment[], followers: Follower[]): Promise<void> {
  switch (one.do) {
    case 'write':
      return segments[one.segment]?.write(one.length);
    case 'join':
      followers.push(new Follower(ingest.follow()));
      return;
    case 'read':
      followers[one.follower]?.read(one.length);
      return;
    case 'leave': {
      const [left] = followers.splice(one.follower, 1);
      await left?.close();
      return;
    }
  }
}

class Segment {
  readonly #writer: IngestWriter;
  readonly #end: number;
  #position: number;

  constructor(ingest: Ingest, start: number) {
    this.#writer = ingest.writer(start);
    this.#position = start;
    this.#end = start + SIZE / 4;
  }

  async write(length: number): Promise<void> {
    const end = Math.min(this.#position + length, this.#end);
    if (end > this.#position) await this.#writer.append(bytes.subarray(this.#position, end));
    this.#position = end;
  }

  finish(): Promise<void> {
    return this.write(SIZE);
  }
}
