import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { suite, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { digestOf } from '../../../src/oci/digest.ts';
import { formatImageName } from '../../../src/oci/image-name.ts';
import { LayoutError, type LayoutErrorCode } from '../../../src/transfer/layout/errors.ts';
import { readLayout } from '../../../src/transfer/layout/layout-reader.ts';
import { noise } from '../../helpers/images.ts';
import {
  blobEntry,
  indexEntry,
  KeepingSink,
  layoutOf,
  pieces,
  readTar,
  type TestEntry,
  tarOf,
  VERSION_ENTRY,
} from '../../helpers/tars.ts';

const MANIFEST = noise(3000, 'manifest');
const DIGEST = digestOf(MANIFEST);
const HEX = DIGEST.slice('sha256:'.length);
const LISTING = { digest: DIGEST, size: MANIFEST.length };
const DESCRIPTOR = { ...LISTING, mediaType: 'application/vnd.oci.image.manifest.v1+json' };

const CONTAINERD = 'io.containerd.image.name';
const REF = 'org.opencontainers.image.ref.name';

async function refusal(reading: Promise<unknown>): Promise<LayoutError> {
  const error = await reading.then(
    () => assert.fail('it was read'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof LayoutError, String(error));
  assert.ok(!/[\n\r]/.test(error.message), 'a message is one line');
  return error;
}

suite('an image is called', () => {
  const repoTags = (...items: string[][]) => ({
    name: 'manifest.json',
    bytes: JSON.stringify(items.map((RepoTags) => ({ Config: 'blobs/sha256/x', RepoTags, Layers: [] }))),
  });
  const cases: [string, Record<string, string>, TestEntry[], string[]][] = [
    [
      'as containerd writes it',
      { [CONTAINERD]: 'quay.io/org/app:1', [REF]: '1' },
      [],
      ['quay.io/org/app:1 1'],
    ],
    [
      'as containerd writes it, without a tag',
      { [CONTAINERD]: `quay.io/org/app@${DIGEST}` },
      [],
      [`quay.io/org/app@${DIGEST}`],
    ],
    ['by a ref.name that is a name', { [REF]: 'alpine:3.20' }, [], ['docker.io/library/alpine:3.20']],
    [
      'by a ref.name when the annotation of containerd is not a name',
      { [CONTAINERD]: 'A!', [REF]: 'a/b:1' },
      [],
      ['docker.io/a/b:1'],
    ],
    ['by a bare tag, for the caller to decide', { [REF]: 'latest' }, [], ['- latest']],
    ['nothing, when ref.name is neither', { [REF]: 'two words' }, [], ['-']],
    [
      'by the tags of docker save, each of them',
      {},
      [repoTags(['a:1', 'quay.io/a/b:2'])],
      ['docker.io/library/a:1', 'quay.io/a/b:2'],
    ],
    ['nothing, when several images of docker are listed', {}, [repoTags(['a:1'], ['b:1'])], ['-']],
    ['nothing, when manifest.json is not docker’s', {}, [{ name: 'manifest.json', bytes: '{"a":1}' }], ['-']],
    [
      'by its own name rather than by the tags of docker save',
      { [REF]: 'a:1' },
      [repoTags(['b:2'])],
      ['docker.io/library/a:1'],
    ],
  ];
  for (const [how, annotations, more, expected] of cases) {
    test(how, async () => {
      const images = await readTar(
        await tarOf([...layoutOf(MANIFEST, annotations), ...more]),
        new KeepingSink(),
      );
      const found = images.map(({ name, tag }) =>
        [name === undefined ? '-' : formatImageName(name), tag]
          .filter((part) => part !== undefined)
          .join(' '),
      );
      assert.deepEqual(found, expected);
      for (const { descriptor } of images) assert.deepEqual(descriptor, DESCRIPTOR);
    });
  }
});

test('the tags of docker save name no image if they could mean either of two', async () => {
  const other = noise(50, 'other');
  const listings = indexEntry(LISTING, { digest: digestOf(other), size: other.length });
  const dockers = { name: 'manifest.json', bytes: '[{"RepoTags":["a:1"]}]' };
  const tar = await tarOf([VERSION_ENTRY, listings, blobEntry(MANIFEST), blobEntry(other), dockers]);
  const images = await readTar(tar, new KeepingSink());
  assert.deepEqual(
    images.map(({ name }) => name),
    [undefined, undefined],
  );
});

suite('an archive is read', () => {
  const directory = (name: string): TestEntry => ({ name, type: 'directory' });
  const inOrder = layoutOf(MANIFEST);
  const brackets = { note: `a quote " and ${'['.repeat(100)}` };
  for (const [how, entries] of [
    ['with index.json first', inOrder],
    ['with brackets in a text of index.json, which are not nesting', layoutOf(MANIFEST, brackets)],
    ['with index.json last', inOrder.toReversed()],
    ['with folders', [directory('./'), directory('blobs/'), directory('blobs/sha256/'), ...inOrder]],
    ['as tar writes the folder it is in', inOrder.map((entry) => ({ ...entry, name: `./${entry.name}` }))],
    ['with a blob twice', [...inOrder, blobEntry(MANIFEST)]],
    ['with index.json twice', [...inOrder, indexEntry({ ...LISTING, annotations: {} })]],
    ['with files that are not the layout’s', [{ name: 'repositories', bytes: '{}' }, ...inOrder]],
    [
      'with a link that is not the layout’s',
      [...inOrder, { name: 'latest', type: 'symlink', linkname: '/etc/passwd' } as const],
    ],
  ] as [string, TestEntry[]][]) {
    test(how, async () => {
      const sink = new KeepingSink();
      const images = await readTar(await tarOf(entries), sink);
      assert.deepEqual(images, [{ descriptor: DESCRIPTOR }]);
      assert.deepEqual(sink.calls, [DIGEST], 'the sink is called once for a digest');
      assert.deepEqual(sink.blobs.get(DIGEST), MANIFEST);
    });
  }

  test('byte by byte, gzip’ed and not', async () => {
    const tar = await tarOf(layoutOf(MANIFEST));
    for (const bytes of [tar, gzipSync(tar)]) {
      const sink = new KeepingSink();
      assert.deepEqual(await readTar(bytes, sink, undefined, 1), [{ descriptor: DESCRIPTOR }]);
      assert.deepEqual(sink.blobs.get(DIGEST), MANIFEST);
    }
  });

  test('with sha512 digests, whose paths need an extended header', async () => {
    const sink = new KeepingSink();
    const digest = digestOf(MANIFEST, 'sha512');
    const entries = [VERSION_ENTRY, indexEntry({ ...LISTING, digest }), blobEntry(MANIFEST, digest)];
    await readTar(await tarOf(entries), sink);
    assert.deepEqual(sink.blobs.get(digest), MANIFEST);
  });

  test('with an empty blob', async () => {
    const sink = new KeepingSink();
    await readTar(await tarOf([...layoutOf(MANIFEST), blobEntry(Buffer.alloc(0))]), sink);
    assert.equal(sink.blobs.size, 2);
  });

  test('without the blobs that an earlier archive holds', async () => {
    const images = await readTar(await tarOf([VERSION_ENTRY, indexEntry(LISTING)]), new KeepingSink());
    assert.deepEqual(images, [{ descriptor: DESCRIPTOR }]);
  });

  test('to its end by a sink that leaves blobs unread, or stops in the middle of them', async () => {
    const blobs = ['a', 'b', 'c', 'd'].map((seed) => noise(300_000, seed));
    const tar = await tarOf([...blobs.map((bytes) => blobEntry(bytes)), ...layoutOf(MANIFEST)]);
    const seen: number[] = [];
    const images = await readTar(tar, {
      async blob(_digest, size, body) {
        seen.push(size);
        if (seen.length % 2 === 0) return;
        for await (const chunk of body) if (chunk.length > 0) break;
      },
    });
    assert.deepEqual(seen, [300_000, 300_000, 300_000, 300_000, MANIFEST.length]);
    assert.equal(images.length, 1);
  });
});

suite('an archive is refused', () => {
  const blobAt = (name: string): TestEntry => ({ name, bytes: MANIFEST });
  const inPlaceOfBlob = (
    type: 'link' | 'symlink' | 'character-device' | 'block-device' | 'fifo' | 'directory',
  ) => [VERSION_ENTRY, indexEntry(LISTING), { name: `blobs/sha256/${HEX}`, type, linkname: `../../${HEX}` }];
  const withIndex = (bytes: string): TestEntry[] => [VERSION_ENTRY, { name: 'index.json', bytes }];
  const listing = (change: Record<string, unknown>) =>
    withIndex(JSON.stringify({ schemaVersion: 2, manifests: [{ ...DESCRIPTOR, ...change }] }));
  const deep = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);

  const cases: [string, LayoutErrorCode, TestEntry[]][] = [
    ['a path out of it', 'bad-name', [blobAt(`blobs/sha256/../../${HEX}`)]],
    ['a path out of it that does not even begin in it', 'bad-name', [blobAt('../../etc/cron.d/x')]],
    ['an absolute path', 'bad-name', [blobAt(`/blobs/sha256/${HEX}`)]],
    ['an absolute path with two slashes', 'bad-name', [blobAt(`//blobs/sha256/${HEX}`)]],
    ['an absolute path behind a dot', 'bad-name', [blobAt(`.//blobs/sha256/${HEX}`)]],
    ['a dot in a path', 'bad-name', [blobAt(`blobs/./sha256/${HEX}`)]],
    ['two dots before a path', 'bad-name', [blobAt('././index.json')]],
    ['an empty part of a path', 'bad-name', [blobAt(`blobs//sha256/${HEX}`)]],
    ['a path of two dots', 'bad-name', [{ name: '..', type: 'directory' }]],
    ['a blob that is not named after a digest', 'bad-name', [blobAt('blobs/sha256/latest')]],
    ['a blob named in capitals', 'bad-name', [blobAt(`blobs/sha256/${HEX.toUpperCase()}`)]],
    ['a blob of an unsupported algorithm', 'bad-name', [blobAt(`blobs/md5/${HEX.slice(0, 32)}`)]],
    ['a blob whose name is too long for its algorithm', 'bad-name', [blobAt(`blobs/sha256/${HEX}${HEX}`)]],
    ['a blob one folder too deep', 'bad-name', [blobAt(`blobs/sha256/${HEX}/x`)]],
    ['a blob in no folder', 'bad-name', [blobAt(`blobs/${HEX}`)]],
    ['a file in place of the folder of blobs', 'bad-name', [blobAt('blobs')]],
    [
      'a link in place of the folder of blobs',
      'bad-name',
      [{ name: 'blobs', type: 'symlink', linkname: '/' }],
    ],
    ['a symbolic link in place of a blob', 'not-a-file', inPlaceOfBlob('symlink')],
    ['a hard link in place of a blob', 'not-a-file', inPlaceOfBlob('link')],
    ['a character device in place of a blob', 'not-a-file', inPlaceOfBlob('character-device')],
    ['a block device in place of a blob', 'not-a-file', inPlaceOfBlob('block-device')],
    ['a pipe in place of a blob', 'not-a-file', inPlaceOfBlob('fifo')],
    ['a folder in place of a blob', 'not-a-file', inPlaceOfBlob('directory')],
    [
      'a link in place of index.json',
      'not-a-file',
      [VERSION_ENTRY, { name: 'index.json', type: 'symlink', linkname: '/etc/passwd' }],
    ],
    [
      'a blob twice, with the same size and other content',
      'duplicate',
      [...layoutOf(MANIFEST), blobEntry(noise(MANIFEST.length, 'other'), DIGEST)],
    ],
    [
      'a blob twice, with another size',
      'duplicate',
      [...layoutOf(MANIFEST), blobEntry(noise(9, ''), DIGEST)],
    ],
    ['two index.json', 'duplicate', [...layoutOf(MANIFEST), indexEntry()]],
    [
      'two index.json, spelled in two ways',
      'duplicate',
      [...layoutOf(MANIFEST), { ...indexEntry(), name: './index.json' }],
    ],
    [
      'a manifest whose size differs from index.json, which comes first',
      'wrong-size',
      [VERSION_ENTRY, indexEntry({ ...LISTING, size: 1 }), blobEntry(MANIFEST)],
    ],
    [
      'a manifest whose size differs from index.json, which comes last',
      'wrong-size',
      [blobEntry(MANIFEST), VERSION_ENTRY, indexEntry({ ...LISTING, size: 1 })],
    ],
    [
      'one manifest listed with two sizes',
      'wrong-size',
      [VERSION_ENTRY, indexEntry(LISTING, { ...LISTING, size: 1 })],
    ],
    ['no index.json', 'not-a-layout', [VERSION_ENTRY, blobEntry(MANIFEST)]],
    ['no oci-layout', 'not-a-layout', [indexEntry(LISTING), blobEntry(MANIFEST)]],
    [
      'another version',
      'unsupported-version',
      [{ name: 'oci-layout', bytes: '{"imageLayoutVersion":"2.0.0"}' }, indexEntry(LISTING)],
    ],
    ['no version', 'bad-index', [{ name: 'oci-layout', bytes: '{}' }, indexEntry(LISTING)]],
    ['an index.json that is not JSON', 'bad-index', withIndex('{')],
    ['an index.json that is not an index', 'bad-index', withIndex('[]')],
    ['an index.json of another schema', 'bad-index', withIndex('{"schemaVersion":1,"manifests":[]}')],
    ['an index.json without manifests', 'bad-index', withIndex('{"schemaVersion":2,"manifests":null}')],
    ['a listing with something that is not a digest', 'bad-index', listing({ digest: '../../etc/passwd' })],
    ['a listing without a size', 'bad-index', listing({ size: undefined })],
    ['a listing with a negative size', 'bad-index', listing({ size: -1 })],
    ['a listing with half a byte', 'bad-index', listing({ size: 1.5 })],
    ['a listing without a media type', 'bad-index', listing({ mediaType: '' })],
    ['a listing whose name is not text', 'bad-index', listing({ annotations: { [REF]: {} } })],
    [
      'a listing whose name has another digest',
      'bad-index',
      listing({
        annotations: { [CONTAINERD]: `a/b@${digestOf(Buffer.from('other'))}` },
      }),
    ],
    [
      'an index.json nested deeply',
      'bad-index',
      withIndex(`{"schemaVersion":2,"manifests":[],"x":${deep(40)}}`),
    ],
    ['an index.json nested too deeply for any parser', 'bad-index', withIndex(deep(1_000_000))],
    ['an index.json above 8 MiB', 'too-large', withIndex(' '.repeat(8 * 1024 * 1024 + 1))],
    [
      'a long file that is not the layout’s',
      'too-large',
      [{ name: 'secrets.bin', bytes: Buffer.alloc(8 * 1024 * 1024 + 1) }, ...layoutOf(MANIFEST)],
    ],
    [
      'the old format of docker save',
      'docker-archive',
      [
        { name: `${HEX}.json`, bytes: '{}' },
        { name: 'manifest.json', bytes: '[{"RepoTags":["a:1"]}]' },
      ],
    ],
    [
      'the old format of docker save, at its first layer',
      'docker-archive',
      [{ name: `${HEX}/layer.tar`, bytes: Buffer.alloc(9 * 1024 * 1024) }],
    ],
    ['the default format of podman save', 'docker-archive', [{ name: `${HEX}.tar`, bytes: 'layer' }]],
  ];
  for (const [what, code, entries] of cases) {
    test(`for ${what}`, async () => {
      const sink = new KeepingSink();
      const error = await refusal(readTar(await tarOf(entries), sink, undefined, 64 * 1024));
      assert.equal(error.code, code, error.message);
      for (const [digest, bytes] of sink.blobs) assert.equal(digestOf(bytes), digest);
    });
  }

  test('with advice on how to write one that can be read', async () => {
    const old = await tarOf([{ name: 'manifest.json', bytes: '[]' }]);
    const { message } = await refusal(readTar(old, new KeepingSink()));
    assert.match(
      message,
      /: write it with docker save of Docker 25 or newer, podman save --format oci-archive, or skopeo copy … oci-archive:/,
    );
  });

  test('for more entries, or a longer blob, than the caller allows', async () => {
    const tar = await tarOf(layoutOf(MANIFEST));
    const sink = new KeepingSink();
    const few = { maxEntries: 2, maxBlobBytes: MANIFEST.length };
    assert.equal((await refusal(readTar(tar, sink, few))).code, 'too-many-entries');
    const short = { maxEntries: 3, maxBlobBytes: MANIFEST.length - 1 };
    assert.equal((await refusal(readTar(tar, sink, short))).code, 'too-large');
    assert.deepEqual(sink.calls, [], 'before the sink sees anything of it');
    await readTar(tar, sink, { maxEntries: 3, maxBlobBytes: MANIFEST.length });
  });

  test('wherever it is cut off', async () => {
    const tar = await tarOf([
      ...layoutOf(MANIFEST),
      blobEntry(noise(700, 'layer'), digestOf(noise(700, 'layer'))),
    ]);
    const end = tar.length - 1024;
    for (let length = 0; length < end + 512; length += 128) {
      const sink = new KeepingSink();
      const { code } = await refusal(readTar(tar.subarray(0, length), sink));
      assert.equal(code, length < 512 ? 'not-a-tar' : 'truncated', `after ${length} bytes`);
      for (const [digest, bytes] of sink.blobs) assert.equal(digestOf(bytes), digest, 'no blob is cut off');
    }
    const zipped = gzipSync(tar);
    const { code } = await refusal(readTar(zipped.subarray(0, zipped.length - 20), new KeepingSink()));
    assert.equal(code, 'truncated');
  });

  test('when it is cut off after a blob that ends in zeros, as a tar does', async () => {
    const zeros = Buffer.alloc(4096);
    const tar = await tarOf([...layoutOf(MANIFEST), blobEntry(zeros)]);
    const { code } = await refusal(readTar(tar.subarray(0, tar.length - 1024), new KeepingSink()));
    assert.equal(code, 'truncated');
    await readTar(tar, new KeepingSink());
  });

  test('when it is cut off between a long path and its file', async () => {
    const digest = digestOf(MANIFEST, 'sha512');
    const tar = await tarOf([...layoutOf(MANIFEST), blobEntry(MANIFEST, digest)]);
    const header = tar.lastIndexOf('ustar');
    const { code } = await refusal(readTar(tar.subarray(0, header - (header % 512)), new KeepingSink()));
    assert.equal(code, 'truncated');
  });

  test('for noise, a page of HTML, a header with a wrong checksum, and a size that is not a number', async () => {
    const tar = await tarOf(layoutOf(MANIFEST));
    const flipped = Buffer.from(tar);
    flipped.writeUInt8(flipped.readUInt8(0) ^ 1, 0);
    const negative = Buffer.from(tar);
    negative.fill(0xff, 124, 125);
    writeChecksum(negative);
    const html = Buffer.from(`<html>${'<p>please log in</p>'.repeat(100)}`);
    const damagedGzip = Buffer.concat([Buffer.from([0x1f, 0x8b]), noise(5000, 'x')]);
    for (const bytes of [
      noise(5000, 'noise'),
      html,
      flipped,
      negative,
      damagedGzip,
      Buffer.alloc(0),
      Buffer.alloc(9000),
    ]) {
      const sink = new KeepingSink();
      assert.equal((await refusal(readTar(bytes, sink))).code, 'not-a-tar');
      assert.deepEqual(sink.calls, []);
    }
  });
});

test('an error of the sink or of the input is thrown unchanged, and nothing more is read', async () => {
  const tar = await tarOf([blobEntry(noise(900_000, 'layer')), ...layoutOf(MANIFEST)]);
  const fault = new Error('disk full');
  let closed = false;
  const input = async function* (bytes: Buffer, failing: boolean): AsyncGenerator<Buffer, void> {
    try {
      yield* pieces(bytes.subarray(0, 500_000), 10_000);
      if (failing) throw fault;
      yield* pieces(bytes.subarray(500_000), 10_000);
    } finally {
      closed = true;
    }
  };
  const failingSink = { blob: () => Promise.reject(fault) };
  for (const bytes of [tar, gzipSync(tar)]) {
    closed = false;
    await assert.rejects(readLayout(input(bytes, false), failingSink), (error) => error === fault);
    assert.ok(closed, 'the rest is not read');
  }
  await assert.rejects(readLayout(input(tar, true), new KeepingSink()), (error) => error === fault);
});

test('a body that is read too late is an error, not a short blob', async () => {
  const tar = await tarOf([blobEntry(noise(200_000, 'layer')), ...layoutOf(MANIFEST)]);
  const bodies: AsyncIterable<Buffer>[] = [];
  await readTar(tar, { blob: async (_digest, _size, body) => void bodies.push(body) });
  assert.equal(bodies.length, 2);
  for (const body of bodies) await refusal(buffer(body));
});

test('a slow sink slows down the reading of the input', async () => {
  const layer = noise(4_000_000, 'layer');
  const tar = await tarOf([blobEntry(layer), ...layoutOf(MANIFEST)]);
  let given = 0;
  const input = async function* (): AsyncGenerator<Buffer, void> {
    for await (const piece of pieces(tar, 16 * 1024)) {
      given += 1;
      yield piece;
    }
  };
  let ahead = 0;
  let taken = 0;
  await readLayout(input(), {
    async blob(_digest, _size, body) {
      for await (const chunk of body) {
        taken += chunk.length;
        // Gives code that reads ahead the time to do so.
        for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
        ahead = Math.max(ahead, given - Math.floor(taken / (16 * 1024)));
      }
    },
  });
  assert.ok(given > 200, 'there was something to read ahead of');
  assert.ok(ahead <= 4, `${ahead} chunks ahead of the sink`);
});

function writeChecksum(header: Buffer): void {
  header.write('        ', 148);
  const sum = header.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
}
