/**
 * A fleet in which every node pulls the same image at once, in code: who sends how many bytes to whom.
 *
 * Bytes are a fluid that moves in steps of time. A node's line, the store and the upstream are shared fairly among what goes
 * over them. Latency, lost packets and CPU are left out: what is found to be too slow here is too slow.
 */

/** How a node finds bytes that it has not got. */
export interface Plan {
  name: string;
  /** Followers of one blob that a node serves. More are sent on; who cannot be sent on is served all the same. */
  followers: number;
  /** Nodes that bytes pass at most on their way from upstream to the node that asks. 1: the holder serves all. */
  chain: number;
  /** Whether what was uploaded is read from the store. */
  store: boolean;
}

export interface Surroundings {
  nodes: number;
  /** Bytes of each layer. */
  layers: readonly number[];
  /** Layers that a client pulls at a time. */
  layersAtATime: number;
  /** Bytes after which a node asks anew where to get the rest: the parts that a blob is fetched in. */
  partBytes: number;
  /** Within which the clients begin. */
  startsWithinSeconds: number;
  /** Bytes a second. */
  rates: {
    nodeUp: number;
    nodeDown: number;
    upstream: number;
    upstreamConnection: number;
    store: number;
    storeConnection: number;
    /** What one node uploads in the background: `maxUpload`. */
    upload: number;
  };
}

export interface Outcome {
  plan: string;
  /** Until the first half of the nodes, and until the last of them had the image. */
  medianSeconds: number;
  lastSeconds: number;
  /** In images. */
  fromUpstream: number;
  fromStore: number;
  mostSentByOneNode: number;
  /** Followers of one blob at one node, at one time. */
  mostFollowers: number;
  /** Of the layers on all nodes: the part that once got less than 256 KiB a second for 5 s. A mirror gives such a node up. */
  tooSlow: number;
  /** In the busiest second: what was asked of one node, and of the store. */
  nodeRequestsPerSecond: number;
  storeRequestsPerSecond: number;
}

const SLOW_BYTES_PER_SECOND = 256 * 1024;
const SLOW_SECONDS = 5;
/** Rounds in which what one flow cannot use is given to the others. */
const ROUNDS = 4;

/** One end of a line: what goes over it together moves at most `rate` bytes a second. */
class Line {
  readonly rate: number;
  /** Of the step that is computed now: bytes that are left, and flows that can still use some. */
  left = 0;
  users = 0;

  constructor(rate: number) {
    this.rate = rate;
  }
}

class Node {
  readonly up: Line;
  readonly down: Line;
  sent = 0;
  nextLayer = 0;
  doneLayers = 0;
  doneAt = Number.POSITIVE_INFINITY;
  readonly startsAt: number;
  requests = 0;

  constructor(rates: Surroundings['rates'], startsAt: number) {
    this.up = new Line(rates.nodeUp);
    this.down = new Line(rates.nodeDown);
    this.startsAt = startsAt;
  }
}

/** A layer on a node, whole or coming in. */
class Copy {
  readonly node: Node;
  readonly layer: number;
  readonly size: number;
  at = 0;
  /** Where it comes from now. */
  source: Copy | 'upstream' | 'store' | undefined;
  readonly followers: Copy[] = [];
  /** The follower that the next one is sent to. */
  turn = 0;
  partEnd = 0;
  /** Of the step that is computed now. */
  wanted = 0;
  got = 0;
  connection: Line | undefined;
  slowSince = 0;
  slowFrom = 0;
  wasSlow = false;

  constructor(node: Node, layer: number, size: number) {
    this.node = node;
    this.layer = layer;
    this.size = size;
  }
}

export function simulate(plan: Plan, surroundings: Surroundings): Outcome {
  return new Simulation(plan, surroundings).run();
}

class Simulation {
  readonly #plan: Plan;
  readonly #surroundings: Surroundings;
  readonly #nodes: Node[];
  readonly #upstream: Line;
  readonly #store: Line;
  /** For each layer: who fetched it, and when the store has it; seconds. */
  readonly #holders: (Copy | undefined)[];
  readonly #storedAt: number[];
  readonly #uploadFreeAt = new Map<Node, number>();
  /** What is coming in. */
  #active: Copy[] = [];
  #now = 0;
  #fromUpstream = 0;
  #fromStore = 0;
  #mostFollowers = 0;
  #tooSlow = 0;
  readonly #peaks = { node: 0, store: 0 };
  #storeRequests = 0;
  #second = 0;

  constructor(plan: Plan, surroundings: Surroundings) {
    this.#plan = plan;
    this.#surroundings = surroundings;
    const { nodes, layers, rates, startsWithinSeconds } = surroundings;
    const random = randomFrom(1);
    this.#nodes = Array.from({ length: nodes }, () => new Node(rates, random() * startsWithinSeconds)).sort(
      (a, b) => a.startsAt - b.startsAt,
    );
    this.#upstream = new Line(rates.upstream);
    this.#store = new Line(rates.store);
    this.#holders = layers.map(() => undefined);
    this.#storedAt = layers.map(() => Number.POSITIVE_INFINITY);
  }

  run(): Outcome {
    const { layers } = this.#surroundings;
    const image = layers.reduce((sum, size) => sum + size, 0);
    let left = this.#nodes.length;
    while (left > 0) {
      const step = this.#stepSeconds();
      this.#beginLayers();
      this.#share(step);
      this.#now += step;
      this.#move();
      this.#countSecond();
      for (const node of this.#nodes) {
        if (node.doneLayers < layers.length || node.doneAt < Number.POSITIVE_INFINITY) continue;
        node.doneAt = this.#now - node.startsAt;
        left -= 1;
      }
    }
    const times = this.#nodes.map(({ doneAt }) => doneAt).sort((a, b) => a - b);
    return {
      plan: this.#plan.name,
      medianSeconds: times[Math.floor(times.length / 2)] ?? Number.NaN,
      lastSeconds: times.at(-1) ?? Number.NaN,
      fromUpstream: this.#fromUpstream / image,
      fromStore: this.#fromStore / image,
      mostSentByOneNode: Math.max(...this.#nodes.map(({ sent }) => sent)) / image,
      mostFollowers: this.#mostFollowers,
      tooSlow: this.#tooSlow / (this.#nodes.length * layers.length),
      nodeRequestsPerSecond: this.#peaks.node,
      storeRequestsPerSecond: this.#peaks.store,
    };
  }

  /** Small at first, where much happens; a thousandth of the time that has passed later. */
  #stepSeconds(): number {
    return Math.min(1, Math.max(0.05, this.#now / 1000));
  }

  #beginLayers(): void {
    const { layers, layersAtATime } = this.#surroundings;
    for (const node of this.#nodes) {
      if (node.startsAt > this.#now) break;
      while (node.nextLayer < layers.length && node.nextLayer - node.doneLayers < layersAtATime) {
        const layer = node.nextLayer;
        node.nextLayer += 1;
        const copy = new Copy(node, layer, layers[layer] ?? 0);
        this.#active.push(copy);
        this.#find(copy);
      }
    }
  }

  /** Looks where the next part of a copy comes from, as a node does. */
  #find(copy: Copy): void {
    const { layer, at, size } = copy;
    this.#leave(copy);
    copy.partEnd = Math.min(size, at + this.#surroundings.partBytes);
    copy.slowSince = this.#now;
    copy.slowFrom = at;
    if (this.#plan.store) {
      this.#storeRequests += 1;
      if ((this.#storedAt[layer] ?? 0) <= this.#now) return this.#readFrom(copy, 'store');
    }
    const holder = this.#holders[layer];
    if (holder === undefined || holder === copy) {
      this.#holders[layer] = copy;
      return this.#readFrom(copy, 'upstream');
    }
    const source = this.#serverOf(copy, holder);
    copy.source = source;
    source.followers.push(copy);
    this.#mostFollowers = Math.max(this.#mostFollowers, source.followers.length);
  }

  /** Goes from the holder to those who are further along, until one has room. */
  #serverOf(copy: Copy, holder: Copy): Copy {
    let source = holder;
    for (let passed = 1; ; passed += 1) {
      source.node.requests += 1;
      if (source.followers.length < this.#plan.followers || passed >= this.#plan.chain) return source;
      const next = nextOf(source, copy);
      if (next === undefined) return source;
      source = next;
    }
  }

  #readFrom(copy: Copy, source: 'upstream' | 'store'): void {
    const { upstreamConnection, storeConnection } = this.#surroundings.rates;
    copy.source = source;
    copy.connection = new Line(source === 'upstream' ? upstreamConnection : storeConnection);
  }

  #leave(copy: Copy): void {
    if (copy.source instanceof Copy) {
      const { followers } = copy.source;
      followers.splice(followers.indexOf(copy), 1);
    }
    copy.source = undefined;
    copy.connection = undefined;
  }

  /** Shares the lines fairly: what one flow cannot use, the others get in the next round. */
  #share(step: number): void {
    for (const node of this.#nodes) {
      node.up.left = node.up.rate * step;
      node.down.left = node.down.rate * step;
    }
    this.#upstream.left = this.#upstream.rate * step;
    this.#store.left = this.#store.rate * step;
    let flows: { copy: Copy; lines: Line[] }[] = [];
    for (const copy of this.#active) {
      copy.got = 0;
      copy.wanted = this.#available(copy);
      if (copy.connection !== undefined) copy.connection.left = copy.connection.rate * step;
      if (copy.wanted > 0) flows.push({ copy, lines: this.#linesOf(copy) });
    }
    for (let round = 0; round < ROUNDS && flows.length > 0; round += 1) {
      for (const { lines } of flows) for (const line of lines) line.users = 0;
      for (const { lines } of flows) for (const line of lines) line.users += 1;
      const shares = flows.map(({ copy, lines }) =>
        Math.min(copy.wanted - copy.got, ...lines.map(({ left, users }) => left / users)),
      );
      for (const [n, { copy, lines }] of flows.entries()) {
        const share = shares[n] ?? 0;
        copy.got += share;
        for (const line of lines) line.left -= share;
      }
      flows = flows.filter(
        ({ copy, lines }) => copy.wanted - copy.got > 1 && lines.every(({ left }) => left > 1),
      );
    }
  }

  #available({ at, partEnd, source }: Copy): number {
    if (source === undefined) return 0;
    return source instanceof Copy ? Math.min(source.at, partEnd) - at : partEnd - at;
  }

  #linesOf({ source, node, connection }: Copy): Line[] {
    if (source instanceof Copy) return [node.down, source.node.up];
    const shared = source === 'upstream' ? this.#upstream : this.#store;
    return connection === undefined ? [node.down, shared] : [node.down, shared, connection];
  }

  #move(): void {
    const ended: Copy[] = [];
    for (const copy of this.#active) {
      const { source, got } = copy;
      copy.at += got;
      if (source === 'upstream') this.#fromUpstream += got;
      else if (source === 'store') this.#fromStore += got;
      else if (source !== undefined) source.node.sent += got;
      if (copy.at >= copy.partEnd - 1) ended.push(copy);
      else if (source instanceof Copy) this.#countSlow(copy);
    }
    for (const copy of ended) {
      if (copy.at < copy.size - 1) this.#find(copy);
      else this.#end(copy);
    }
    if (ended.length > 0) this.#active = this.#active.filter(({ at, size }) => at < size - 1);
  }

  #end(copy: Copy): void {
    this.#leave(copy);
    copy.at = copy.size;
    copy.node.doneLayers += 1;
    if (this.#holders[copy.layer] !== copy) return;
    const { upload } = this.#surroundings.rates;
    const begins = Math.max(this.#now, this.#uploadFreeAt.get(copy.node) ?? 0);
    const storedAt = begins + copy.size / upload;
    this.#uploadFreeAt.set(copy.node, storedAt);
    this.#storedAt[copy.layer] = storedAt;
  }

  #countSlow(copy: Copy): void {
    if (this.#now - copy.slowSince < SLOW_SECONDS) return;
    const isSlow = copy.at - copy.slowFrom < SLOW_BYTES_PER_SECOND * (this.#now - copy.slowSince);
    if (isSlow && !copy.wasSlow) {
      copy.wasSlow = true;
      this.#tooSlow += 1;
    }
    copy.slowSince = this.#now;
    copy.slowFrom = copy.at;
  }

  #countSecond(): void {
    const passed = this.#now - this.#second;
    if (passed < 1) return;
    this.#second = this.#now;
    for (const node of this.#nodes) {
      this.#peaks.node = Math.max(this.#peaks.node, node.requests / passed);
      node.requests = 0;
    }
    this.#peaks.store = Math.max(this.#peaks.store, this.#storeRequests / passed);
    this.#storeRequests = 0;
  }
}

/** The follower that one more is sent to: each in turn that is at least as far along. */
function nextOf(source: Copy, { at }: Copy): Copy | undefined {
  const { followers } = source;
  for (let tried = 0; tried < followers.length; tried += 1) {
    source.turn = (source.turn + 1) % followers.length;
    const next = followers[source.turn];
    if (next !== undefined && next.at >= at) return next;
  }
  return undefined;
}

/** The same numbers each time: at least 0, below 1. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}
