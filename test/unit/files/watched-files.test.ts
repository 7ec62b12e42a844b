import assert from 'node:assert/strict';
import { mkdir, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { FileError } from '../../../src/files/errors.ts';
import { WatchedFiles } from '../../../src/files/watched-files.ts';
import { createLogger } from '../../../src/telemetry/log.ts';
import { FakeClock } from '../../helpers/fake-clock.ts';
import { tempDir } from '../../helpers/temp-dir.ts';

/** Two files whose content is joined by `+`; content that says `bad` cannot be used. */
async function watch(t: TestContext) {
  const folder = await tempDir(t);
  const paths = [join(folder, 'one'), join(folder, 'two')] as const;
  for (const path of paths) await writeFile(path, 'a');
  const clock = new FakeClock();
  const log: { level: string; msg: string; files?: string[]; err?: { message: string } }[] = [];
  const destination = { write: (line: string) => void log.push(JSON.parse(line)) };
  const logger = createLogger({ level: 'info', destination, now: () => clock.now() });
  let parsed = 0;
  const open = () =>
    WatchedFiles.open(
      {
        paths,
        parse: (contents) => {
          parsed += 1;
          const text = contents.join('+');
          if (text.includes('bad')) throw new FileError(paths[0], 'it is bad');
          return text;
        },
      },
      { clock, logger },
    );
  return { folder, paths, clock, log, open, parsed: () => parsed };
}

suite('files that are read again', () => {
  test('come as they are, and a change comes after 5 s at most, without a restart', async (t) => {
    const { paths, clock, open, log } = await watch(t);
    const files = await open();
    assert.equal(await files.current(), 'a+a');
    await writeFile(paths[1], 'longer');
    assert.equal(await files.current(), 'a+a'); // looked at a moment ago
    clock.advance(5_000);
    assert.equal(await files.current(), 'a+longer');
    assert.deepEqual(
      log.map(({ level, msg, files: named }) => ({ level, msg, named })),
      [{ level: 'info', msg: 'changed files are in use', named: [...paths] }],
    );
  });

  test('a request that comes after hours sees the change that came meanwhile', async (t) => {
    const { paths, clock, open } = await watch(t);
    const files = await open();
    await writeFile(paths[0], 'revoked');
    clock.advance(7 * 3_600_000);
    assert.equal(await files.current(), 'revoked+a');
  });

  test('under steady requests none waits for a look, and the change comes all the same', async (t) => {
    const { paths, clock, open } = await watch(t);
    const files = await open();
    await writeFile(paths[0], 'changed');
    clock.advance(1_000);
    assert.equal(await files.current(), 'a+a'); // starts a look, and has its answer before
    let seen = await files.current();
    for (let asked = 0; seen !== 'changed+a'; asked += 1) {
      assert.ok(asked < 10_000, 'the look that was started ends');
      await new Promise(setImmediate);
      seen = await files.current();
    }
  });

  test('a rename over the file is seen', async (t) => {
    const { folder, paths, clock, open } = await watch(t);
    const files = await open();
    await writeFile(join(folder, 'new'), 'b');
    await rename(join(folder, 'new'), paths[0]);
    clock.advance(5_000);
    assert.equal(await files.current(), 'b+a');
  });

  test('a symlink of Kubernetes that leads elsewhere is seen', async (t) => {
    const { folder, paths, clock, open } = await watch(t);
    for (const [name, text] of [
      ['..v1', 'v1'],
      ['..v2', 'v2'],
    ] as const) {
      await mkdir(join(folder, name));
      await writeFile(join(folder, name, 'one'), text);
    }
    await symlink('..v1', join(folder, '..data'));
    await rm(paths[0]);
    await symlink('..data/one', paths[0]);
    const files = await open();
    assert.equal(await files.current(), 'v1+a');
    await symlink('..v2', join(folder, '..data_tmp'));
    await rename(join(folder, '..data_tmp'), join(folder, '..data'));
    clock.advance(5_000);
    assert.equal(await files.current(), 'v2+a');
  });

  test('a change that leaves size and modification time alone is seen', async (t) => {
    const { paths, clock, open } = await watch(t);
    await utimes(paths[0], 1_000, 1_000);
    const files = await open();
    await writeFile(paths[0], 'z');
    await utimes(paths[0], 1_000, 1_000);
    clock.advance(5_000);
    assert.equal(await files.current(), 'z+a');
  });

  test('are read at two looks when they are new, and then only looked at', async (t) => {
    const { paths, clock, open, parsed } = await watch(t);
    const files = await open();
    const look = async (times: number) => {
      for (let looked = 0; looked < times; looked += 1) {
        clock.advance(5_000);
        await files.current();
      }
    };
    await look(5);
    assert.equal(parsed(), 2);
    await writeFile(paths[0], 'changed');
    await look(5);
    assert.equal(parsed(), 4);
  });

  test('are looked at once a second at most, however many ask', async (t) => {
    const { paths, clock, open } = await watch(t);
    const files = await open();
    clock.advance(5_000);
    await Promise.all(Array.from({ length: 100 }, () => files.current()));
    await writeFile(paths[0], 'changed');
    clock.advance(999);
    for (let asked = 0; asked < 100; asked += 1) {
      assert.equal(await files.current(), 'a+a');
      await new Promise(setImmediate);
    }
  });

  test('a clock that is turned back does not keep old content', async (t) => {
    const { paths, clock, open } = await watch(t);
    const files = await open();
    await writeFile(paths[0], 'changed');
    clock.advance(-3_600_000);
    assert.equal(await files.current(), 'changed+a');
  });
});

suite('files that cannot be used', () => {
  test('are an error at the start', async (t) => {
    const { paths, open } = await watch(t);
    await writeFile(paths[1], 'bad');
    await assert.rejects(open(), { name: 'FileError', message: `${paths[0]}: it is bad` });
    await rm(paths[1]);
    await assert.rejects(open(), (error) => {
      assert.ok(error instanceof FileError);
      assert.equal(error.file, paths[1]);
      assert.match(error.message, /cannot be read: ENOENT/);
      return true;
    });
  });

  for (const [what, spoil] of [
    ['whose content is wrong', (path: string) => writeFile(path, 'bad')],
    ['that are gone', (path: string) => rm(path)],
  ] as const) {
    test(`${what} leave the last good content, with a log line a minute, until they are good`, async (t) => {
      const { paths, clock, log, open } = await watch(t);
      const files = await open();
      await spoil(paths[0]);
      for (let second = 0; second < 65; second += 5) {
        clock.advance(5_000);
        assert.equal(await files.current(), 'a+a');
      }
      const lines = log.filter(({ msg }) => msg.startsWith('changed files cannot be used'));
      assert.deepEqual(
        lines.map(({ level, files: named }) => ({ level, named })),
        [1, 2].map(() => ({ level: 'warn', named: [...paths] })),
      );
      assert.ok(lines[0]?.err?.message.includes(paths[0]));
      await writeFile(paths[0], 'good');
      clock.advance(5_000);
      assert.equal(await files.current(), 'good+a');
    });
  }
});
