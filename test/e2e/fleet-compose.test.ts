/**
 * What deploy/fleet says is run: its configuration, commands and environment, by the same programs as processes on this machine.
 * Docker Compose itself, networks and images are not.
 */
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parse, stringify } from 'yaml';
import { engine } from '../helpers/engines.ts';
import { missingForFleet } from '../helpers/fleet-processes.ts';
import { uploaded } from '../helpers/fleet-uploads.ts';
import { noise } from '../helpers/images.ts';
import { type RealMirror, startRealMirror } from '../helpers/real-mirror.ts';
import { freePort, run, startProcess, until } from '../helpers/real-processes.ts';
import { ScriptedUpstream } from '../helpers/scripted-upstream.ts';
import { tempDir } from '../helpers/temp-dir.ts';

const FOLDER = resolve(import.meta.dirname, '../../deploy/fleet');

interface Service {
  command: string[];
  environment: Record<string, string>;
  volumes?: string[];
}

async function readCompose(): Promise<Record<string, Service>> {
  const text = await readFile(join(FOLDER, 'compose.yaml'), 'utf8');
  // As Docker Compose fills in variables that are not set, and reads what is written with two dollars.
  const filled = text.replaceAll(/\$\{[A-Z_]+:-([^}]*)\}/g, '$1').replaceAll('$$', '$');
  return (parse(filled, { merge: true }) as { services: Record<string, Service> }).services;
}

/** Starts the services, and writes what is on this machine in place of names and folders of the containers. */
async function composeUp(t: TestContext, upstream: string) {
  const services = await readCompose();
  const directory = await tempDir(t);
  const [redisPort, storePort] = [await freePort(), await freePort()];
  const folders = { '/run/fleet': join(directory, 'fleet'), '/objects': join(directory, 'objects') };
  for (const folder of Object.values(folders)) await mkdir(folder);
  const here = (text: string) => {
    const names = {
      'http://objects:7070': `http://127.0.0.1:${storePort}`,
      'valkey:6379': `127.0.0.1:${redisPort}`,
      ...folders,
    };
    return Object.entries(names).reduce((result, [from, to]) => result.replaceAll(from, to), text);
  };
  const serviceOf = (name: string) => {
    const service = services[name];
    assert.ok(service, name);
    return { ...service, command: (service.command ?? []).map(here) };
  };
  const [shell = '', ...script] = serviceOf('setup').command;
  await run(shell, script);
  await run(shell, script); // each start runs it: what there is stays
  const [program, ...options] = serviceOf('valkey').command;
  assert.equal(program, 'valkey-server');
  const valkey = startProcess(t, 'redis-server', [
    ...options,
    '--port',
    String(redisPort),
    '--dir',
    directory,
  ]);
  const { command, environment } = serviceOf('objects');
  const store = startProcess(
    t,
    engine('versitygw'),
    command.map((word) => word.replace(/^:7070$/, `127.0.0.1:${storePort}`)),
    environment,
  );
  await until('versitygw', store, async () => (await fetch(`http://127.0.0.1:${storePort}`)).status > 0);
  await until('redis-server', valkey, async () =>
    valkey.lines.some((line) => line.includes('Ready to accept')),
  );
  const settings = parse(here(await readFile(join(FOLDER, 'millpond.yaml'), 'utf8'))) as {
    fleet: Record<string, unknown>;
  };
  const startNode = async (name: string): Promise<RealMirror> => {
    const { MILLPOND_FLEET_ADVERTISE: advertise = '', ...keys } = serviceOf(name).environment;
    assert.equal(advertise, `http://${name}:5002`);
    const port = await freePort();
    const own = await tempDir(t);
    const listeners = { server: { listen: '127.0.0.1:0' }, operations: { listen: '127.0.0.1:0' } };
    const config = {
      ...{ ...settings, ...listeners, cache: { directory: join(own, 'data') } },
      ...{ fleet: { ...settings.fleet, listen: `127.0.0.1:${port}` } },
      upstreams: { 'docker.io': { url: upstream } },
    };
    return startRealMirror(t, own, config, { ...keys, MILLPOND_FLEET_ADVERTISE: `http://127.0.0.1:${port}` });
  };
  return Promise.all(['node-a', 'node-b', 'node-c'].map(startNode));
}

test('three nodes of the compose file share what one has fetched', { skip: missingForFleet() }, async (t) => {
  const upstream = await ScriptedUpstream.start(t);
  const nodes = await composeUp(t, upstream.url);
  const blob = noise(1_000_000, 'blob');
  const digest = upstream.addContent(blob);
  for (const node of nodes) {
    const reply = await fetch(`http://127.0.0.1:${node.port}/v2/org/app/blobs/${digest}`);
    assert.ok(Buffer.from(await reply.arrayBuffer()).equals(blob));
    await uploaded(node);
  }
  assert.equal(upstream.count('blob', 'GET'), 1);
  for (const { operationsPort } of nodes) {
    const { fleet } = (await (await fetch(`http://127.0.0.1:${operationsPort}/api/status`)).json()) as {
      fleet: { objects: { up: boolean }; coordinator: { up: boolean } };
    };
    assert.ok(fleet.objects.up && fleet.coordinator.up);
  }
});

test('every node of the compose file has a disk, an address and a port of its own, and the configuration', async () => {
  const services = await readCompose();
  const nodes = Object.entries(services).filter(([name]) => name.startsWith('node-'));
  assert.equal(nodes.length, 3);
  for (const [name, { volumes = [] }] of nodes) {
    assert.ok(volumes.includes(`${name}:/data`), stringify(volumes));
    assert.ok(volumes.includes('./millpond.yaml:/etc/millpond/config.yaml:ro'));
  }
});
