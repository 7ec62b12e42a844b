/** What tests of a fleet do with images: pull them, remove them, and look what is left of them. */
import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { digestOf } from '../../src/oci/digest.ts';
import type { FleetNode, TestFleet } from './fleet-nodes.ts';
import type { TestImage } from './images.ts';

export const REPOSITORY = 'org/app';

/** All paths of an image, its tag first. */
export function pathsOf(image: TestImage, tag: string): string[] {
  return [
    `manifests/${tag}`,
    ...new Set([image.top, ...image.manifests].map(({ digest }) => `manifests/${digest}`)),
    ...image.blobs.map((blob) => `blobs/${digestOf(blob)}`),
  ];
}

export async function pullImage(node: FleetNode, image: TestImage, tag = '1'): Promise<void> {
  for (const path of pathsOf(image, tag)) {
    const reply = await node.get(`/v2/${REPOSITORY}/${path}`);
    assert.equal(reply.status, 200, `${path}: ${reply.body.toString().slice(0, 300)}`);
  }
}

/** The paths of an image that a node serves. @param except another image, whose blobs do not count */
export async function served(
  node: FleetNode,
  image: TestImage,
  { tag = '1', except }: { tag?: string; except?: TestImage } = {},
): Promise<string[]> {
  const others = new Set(except?.blobs.map((blob) => `blobs/${digestOf(blob)}`));
  const found: string[] = [];
  for (const path of pathsOf(image, tag).filter((one) => !others.has(one)))
    for (const send of ['get', 'head'] as const)
      if ((await node[send](`/v2/${REPOSITORY}/${path}`)).status === 200) found.push(`${send} ${path}`);
  return found;
}

/** @param query such as `?scope=node` */
export async function remove(node: FleetNode, reference: string, query = ''): Promise<[number, unknown]> {
  const path = encodeURIComponent(`${REPOSITORY}${reference}`);
  const reply = await fetch(`${node.operationsUrl}/api/images/docker.io/${path}${query}`, {
    method: 'DELETE',
  });
  return [reply.status, await reply.json()];
}

/** The records of the repository in the store. */
export function records({ bucket }: TestFleet): string[] {
  return [...bucket.objects.keys()]
    .filter((name) => name.includes(`/${REPOSITORY}/_`))
    .map((name) => name.slice(name.indexOf('/_') + 2));
}

/** Moves a node's clock until it has applied an entry of the journal. */
export async function applied(node: FleetNode, number: number, stepMs: number): Promise<void> {
  for (;;) {
    node.clock.advance(stepMs);
    for (let looks = 0; looks < 200; looks += 1) {
      if ((await node.metric('millpond_fleet_journal_applied')) >= number) return;
      await setImmediate();
    }
  }
}
