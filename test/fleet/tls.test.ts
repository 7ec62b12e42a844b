/** Nodes that talk to each other by TLS. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { TestAuthority } from '../helpers/client-certificates.ts';
import { type FleetNode, TestFleet } from '../helpers/fleet-nodes.ts';
import { noise } from '../helpers/images.ts';
import { startCoordinator } from '../helpers/real-coordinator.ts';
import { missingPrograms } from '../helpers/real-processes.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const skip = missingPrograms('redis-server', 'openssl');
const BEAT_MS = 5_000;
/** Longer than files are used without a look at them. */
const LOOK_MS = 3_000;

/** The files of a node. */
class NodeFiles {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  get tls() {
    return { certificate: this.#file('node.pem'), key: this.#file('node-key.pem'), ca: this.#file('ca.pem') };
  }

  /** @param by the authority of its own certificate, @param trusted that of the others' */
  async write(t: TestContext, by: TestAuthority, trusted = by): Promise<void> {
    const extensions = ['subjectAltName = IP:127.0.0.1', 'extendedKeyUsage = serverAuth'];
    const { cert, key } = await by.issue(t, { subject: '/CN=node', extensions });
    const { tls } = this;
    await writeFile(tls.key, key, { mode: 0o600 });
    await writeFile(tls.certificate, cert);
    await writeFile(tls.ca, trusted.cert);
  }

  #file(name: string): string {
    return join(this.#directory, name);
  }
}

async function nodesWith(t: TestContext, files: readonly NodeFiles[]) {
  const fleet = await TestFleet.start(t);
  const coordinator = { url: (await startCoordinator(t)).url };
  const nodes: FleetNode[] = [];
  const start = ({ tls }: NodeFiles) =>
    fleet.node({ moreOfFleet: { coordinator, listen: '127.0.0.1:0', tls } });
  for (const one of files) nodes.push(await start(one));
  const [a, b] = nodes;
  assert.ok(a && b);
  /** Both are asked for a blob while it comes to the first one. @returns what the second one says of where it got it */
  const follow = async (fetching: FleetNode, following: FleetNode) => {
    const blob = noise(600_000, fetching.directory);
    const path = `/v2/org/app/blobs/${fleet.upstream.addContent(blob)}`;
    const rest = Promise.withResolvers<void>();
    fleet.upstream.script(
      { kind: 'blob', method: 'GET' },
      (reply) => {
        reply.stall = { after: 300_000, until: rest.promise };
      },
      { times: 1 },
    );
    const first = fetching.get(path);
    await fleet.upstream.waitForBytes(fleet.upstream.blobBytesSent() + 1);
    const before = await following.metric('millpond_fill_bytes_total');
    const second = following.get(path);
    while ((await following.metric('millpond_fill_bytes_total')) === before);
    rest.resolve();
    assert.ok((await first).body.equals(blob));
    const reply = await second;
    assert.ok(reply.body.equals(blob));
    return String(reply.headers['cache-status']);
  };
  return { a, b, start, follow };
}

const files = async (t: TestContext) => new NodeFiles(await tempDir(t));
const FOLLOWED = 'millpond; fwd=uri-miss; stored; detail=node';

test('nodes with fleet.tls follow each other by TLS, and go on when their certificates and authorities are replaced', {
  skip,
}, async (t) => {
  const [before, after] = [await TestAuthority.root(t, 'before'), await TestAuthority.root(t, 'after')];
  const [third, ...both] = [await files(t), await files(t), await files(t)];
  for (const one of both) await one.write(t, before);
  const { a, b, start, follow } = await nodesWith(t, both);
  assert.equal(await follow(b, a), FOLLOWED);
  assert.ok((await a.metric('millpond_certificate_expiry_timestamp_seconds', { certificate: 'fleet' })) > 0);
  const address = String(a.log.find(({ listener }) => listener === 'fleet')?.['address']);
  await assert.rejects(fetch(`https://${address}`), ({ cause }: Error) => /certificate/.test(String(cause)));
  for (const one of [third, ...both]) await one.write(t, after);
  for (const node of [a, b]) {
    node.clock.advance(LOOK_MS);
    node.clock.advance(LOOK_MS);
    while (node.log.filter(({ msg }) => msg === 'changed files are in use').length < 1) await setImmediate();
  }
  // Nobody has a connection to or from a new one.
  const c = await start(third);
  assert.equal(await follow(a, c), FOLLOWED, 'the certificate of a');
  assert.equal(await follow(c, b), FOLLOWED, 'the authorities of b');
});

test('a node whose certificate the others do not trust is named with the reason, and pulls go on', {
  skip,
}, async (t) => {
  const [trusted, other] = [await TestAuthority.root(t, 'trusted'), await TestAuthority.root(t, 'other')];
  const both = [await files(t), await files(t)];
  await both[0]?.write(t, other, trusted);
  await both[1]?.write(t, trusted);
  const { a, b, follow } = await nodesWith(t, both);
  assert.equal(await follow(a, b), 'millpond; fwd=uri-miss; stored');
  b.clock.advance(BEAT_MS);
  const told = () => b.log.find(({ msg }) => String(msg).startsWith('a node of the fleet cannot be reached'));
  while (told() === undefined) await setImmediate();
  assert.match(
    String(told()?.['trouble']),
    /^no connection to a node of the fleet \([A-Z_]*(?:CERT|SIGNATURE)[A-Z_]*\)$/,
  );
});

test('a file that holds no authorities is refused at the start, by its name', { skip }, async (t) => {
  const authority = await TestAuthority.root(t, 'authority');
  const one = await files(t);
  await one.write(t, authority);
  await writeFile(one.tls.ca, 'nothing of the kind');
  await assert.rejects(nodesWith(t, [one]), /ca\.pem holds no certificates of authorities/);
});
