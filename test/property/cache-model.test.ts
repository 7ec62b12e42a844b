import assert from 'node:assert/strict';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { request } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { diskUse } from '../helpers/disk-use.ts';
import type { TestImage } from '../helpers/images.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror, type TestMirror } from '../helpers/start-mirror.ts';

const KIB = 1024;
const MAX_BYTES = 1024 * KIB;
const HARD_LIMIT = 1.05;
const IMAGES = 8;
const RUNS = 25;
/**
 * No trial begins after this long. One that fast-check's own limit interrupts would go on after the test's end, and the
 * mirrors that it starts then would keep the process from ending.
 */
const TIME_LIMIT_MS = 40_000;
/** Longer than a breaker stays open. */
const BREAKER_MS = 120_000;

type Step =
  | { do: 'pull' | 'hold' | 'remove'; image: number }
  | { do: 'release' | 'restart' | 'crash' | 'outage' };

const anyImage = fc.nat({ max: IMAGES - 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('pull' as const), image: anyImage }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('hold' as const), image: anyImage }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), image: anyImage }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('release', 'restart', 'crash', 'outage') }),
  },
);

/** Images of up to a quarter of the cache; each shares a layer with its neighbour, and every third is an index. */
function addImages(upstream: ScriptedUpstream): TestImage[] {
  return Array.from({ length: IMAGES }, (_, at) =>
    upstream.addImage('a/b', String(at), {
      layers: [20 * KIB + at * 10 * KIB, 60 * KIB],
      platforms: at % 3 === 0 ? ['amd64', 'arm64'] : ['amd64'],
      seed: `image ${Math.floor(at / 2)}`,
    }),
  );
}

/** The mirror under test, and what the model knows: how it must behave does not depend on what was done before. */
class Trial {
  readonly #t: TestContext;
  readonly #upstream: ScriptedUpstream;
  readonly #images: TestImage[];
  #mirror: TestMirror;
  #held: { expected: Buffer; body: Promise<Buffer> }[] = [];
  #crashes = 0;

  private constructor(t: TestContext, upstream: ScriptedUpstream, images: TestImage[], mirror: TestMirror) {
    this.#t = t;
    this.#upstream = upstream;
    this.#images = images;
    this.#mirror = mirror;
  }

  static async start(t: TestContext): Promise<Trial> {
    const upstream = await ScriptedUpstream.start(t);
    return new Trial(t, upstream, addImages(upstream), await startMirror(t, optionsFor(upstream)));
  }

  async take(step: Step): Promise<void> {
    this.#mirror.clock.advance(2000);
    switch (step.do) {
      case 'pull':
        assert.equal(await this.#pull(String(step.image)), true, 'with an upstream every pull completes');
        break;
      case 'hold':
        await this.#hold(step.image);
        break;
      case 'remove':
        await request(`${this.#mirror.operationsUrl}/api/images/registry.test/a/b:${step.image}`, {
          method: 'DELETE',
        }).then(({ body }) => body.dump());
        break;
      case 'release':
        await this.#release();
        break;
      case 'outage':
        await this.#outage();
        break;
      case 'restart':
        await this.#release();
        await this.#mirror.app.close();
        await this.#start(this.#mirror.directory);
        break;
      case 'crash':
        await this.#crash();
        break;
    }
    await this.#mirror.idle();
    await this.#assertAccounts();
  }

  async end(): Promise<void> {
    await this.#release();
    await this.#outage();
    await this.#mirror.app.close();
    await this.#upstream.close();
  }

  /** Used bytes are what the disk holds, and never above the limit. */
  async #assertAccounts(): Promise<void> {
    const used = await this.#mirror.metric('millpond_store_bytes');
    assert.equal(used, await diskUse(join(this.#mirror.directory, 'data/blobs')));
    assert.ok(used <= MAX_BYTES * HARD_LIMIT, `${used}`);
  }

  /** @returns whether the image came whole; false if its manifest did not come at all */
  async #pull(reference: string): Promise<boolean> {
    const manifest = await this.#mirror.get(`/v2/a/b/manifests/${reference}`);
    if (manifest.status !== 200) return false;
    const {
      manifests = [],
      config,
      layers = [],
    } = JSON.parse(manifest.body.toString()) as {
      manifests?: { digest: string }[];
      config?: { digest: string };
      layers?: { digest: string }[];
    };
    for (const { digest } of manifests) {
      assert.equal(await this.#pull(digest), true, 'an index that is served can be completed');
    }
    for (const { digest } of [...(config === undefined ? [] : [config]), ...layers]) {
      const blob = await this.#mirror.get(`/v2/a/b/blobs/${digest}`);
      assert.equal(blob.status, 200, 'a manifest that is served can be completed');
      assert.equal(digestOf(blob.body), digest);
    }
    await this.#mirror.idle();
    return true;
  }

  /** Begins to read the first layer, and goes on only when it is released. */
  async #hold(image: number): Promise<void> {
    const expected = this.#images[image]?.blobs[1] ?? Buffer.alloc(0);
    const reply = await request(`${this.#mirror.url}/v2/a/b/blobs/${digestOf(expected)}`);
    assert.equal(reply.statusCode, 200);
    const body = reply.body.arrayBuffer().then((bytes) => Buffer.from(bytes));
    this.#held.push({ expected, body });
  }

  async #release(): Promise<void> {
    for (const { expected, body } of this.#held) {
      assert.ok((await body).equals(expected), 'who reads while others are evicted gets all of it');
    }
    this.#held = [];
  }

  /** While upstream is away, what is served at all is served whole. */
  async #outage(): Promise<void> {
    this.#upstream.script({}, (reply) => {
      reply.drop = true;
    });
    for (const at of this.#images.keys()) await this.#pull(String(at));
    this.#upstream.clearScripts();
    this.#mirror.clock.advance(BREAKER_MS);
  }

  /** Goes on from the files as they lie there at this moment, which nobody closed. */
  async #crash(): Promise<void> {
    const { directory } = this.#mirror;
    this.#crashes += 1;
    const copy = `${directory.replace(/ crash \d+$/, '')} crash ${this.#crashes}`;
    await cp(directory, copy, { recursive: true });
    await this.#release();
    await this.#mirror.app.close();
    await rm(directory, { recursive: true });
    this.#t.after(() => rm(copy, { recursive: true, force: true }));
    await this.#start(copy);
  }

  async #start(directory: string): Promise<void> {
    const { clock } = this.#mirror;
    this.#mirror = await startMirror(this.#t, { ...optionsFor(this.#upstream), directory, clock });
  }
}

function optionsFor(upstream: ScriptedUpstream) {
  const freshness = { tagTtl: '7d', negativeTtl: '0s' };
  return {
    upstreams: { 'registry.test': { url: upstream.url, freshness } },
    cache: { maxSize: `${MAX_BYTES}B`, keepFree: '0B' },
  };
}

test('whatever is pulled, read, removed, restarted and crashed: accounts are right, limits hold, nothing served is incomplete', async (t) => {
  const deadline = performance.now() + TIME_LIMIT_MS;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
      if (performance.now() > deadline) return;
      const trial = await Trial.start(t);
      for (const one of steps) await trial.take(one);
      await trial.end();
    }),
    { numRuns: RUNS },
  );
});
