import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { runMillpond } from '../helpers/run-millpond.ts';
import { Screen } from '../helpers/screen.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { startMirror } from '../helpers/start-mirror.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const MIB = 1024 * 1024;

async function setUp(t: TestContext) {
  const upstream = await ScriptedUpstream.start(t);
  for (const tag of ['1', '2', '3']) upstream.addImage('org/app', tag, { seed: tag, layers: [12 * MIB] });
  const mirror = await startMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const folder = await tempDir(t);
  const onTerminal = async (screen: Screen, ...args: string[]) => {
    await runMillpond(mirror, args, folder, screen);
    return screen.lines;
  };
  return { upstream, onTerminal };
}

test('a terminal shows bars while a command works, and after its end every line that it wrote and no bar', async (t) => {
  const { upstream, onTerminal } = await setUp(t);
  const images = ['org/app:1', 'org/app:2', 'org/app:3'];
  const screen = new Screen();
  upstream.script({ kind: 'blob' }, (reply) => {
    reply.stall = { after: 6 * MIB, until: screen.waitFor(/docker\.io\/org\/app:\d =.*% of 12 MiB/) };
  });
  const warmed = await onTerminal(screen, 'warm', ...images, 'org/none:1');
  assert.deepEqual(
    warmed.map((line) => line.replace(/: failed: .*|, .*/, '')).toSorted(),
    [
      ...images.map((image) => `docker.io/${image}: done`),
      'docker.io/org/none:1',
      'millpond: not complete: docker.io/org/none:1',
    ].toSorted(),
  );
  const exported = await onTerminal(new Screen(), 'export', '--output', 'images.tar', ...images);
  assert.deepEqual(exported, ['images.tar: 36 MiB written']);
  const imported = await onTerminal(new Screen(), 'import', 'images.tar');
  assert.deepEqual(
    imported.map((line) => line.replace(/, sha256:\w+$/, '')),
    [
      ...images.map((image) => `docker.io/${image}: imported`),
      'images.tar: 0 B stored, 36 MiB already cached',
    ],
  );
  const scrubbed = await onTerminal(new Screen(), 'scrub');
  assert.deepEqual(scrubbed, ['9 objects checked (36 MiB): 0 damaged, 0 missing from the index']);
});
