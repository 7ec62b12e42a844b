/** `millpond list` and `millpond remove`. */
import { type Command, Option } from 'commander';
import type { OperationsClient } from '../io/operations-client.ts';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, isTerminal } from '../io/output.ts';
import { operationsClient } from '../io/server-address.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { ago, writeTable } from '../io/tables.ts';

interface Image {
  name: string;
  digest: string;
  platforms: string[];
  listed?: unknown[];
  state: 'complete' | 'partial' | 'list-only';
  size: number;
  stored: number;
  missing: { blobs: number; of: number };
  usedAt: string;
}

interface Page {
  images: Image[];
  next?: string;
}

interface Removal {
  objects: number;
  bytes: number;
  /** Absent: the mirror is alone, or only this node was asked. */
  fleet?: { nodes: number | null; withinSeconds: number };
}

/** A narrower terminal has no room for digests beside names. */
const WIDE_COLUMNS = 120;

const ORDERS = {
  name: (a: Image, b: Image) => a.name.localeCompare(b.name, 'en'),
  size: (a: Image, b: Image) => b.size - a.size,
  used: (a: Image, b: Image) => b.usedAt.localeCompare(a.usedAt, 'en'),
};

interface ListOptions extends ServerOptions {
  sort?: keyof typeof ORDERS;
  incomplete?: true;
  json?: true;
}

interface RemoveOptions extends ServerOptions {
  yes?: true;
  thisNode?: true;
}

export function addImageCommands(program: Command, surroundings: Surroundings): void {
  const { stdout, stderr, clock } = surroundings;
  withServerOptions(program.command('list'))
    .description('list cached images')
    .argument('[pattern]', 'list only images whose name matches; * matches any text', '*')
    .addOption(
      new Option('--sort <order>', 'by name, by size (largest first) or by last use (latest first)').choices(
        Object.keys(ORDERS),
      ),
    )
    .option('--incomplete', 'only images of which something is missing that was pulled')
    .option('--json', 'print JSON')
    .action(async (pattern: string, options: ListOptions) => {
      const images: Image[] = [];
      const wanted = { pattern, ...(options.incomplete ? { incomplete: 'true' } : {}) };
      for await (const page of pages(await operationsClient(options, surroundings), wanted))
        images.push(...page);
      if (options.sort !== undefined) images.sort(ORDERS[options.sort]);
      if (options.json) {
        stdout.write(`${JSON.stringify(images, undefined, 2)}\n`);
        return;
      }
      const hasDigests = !isTerminal(stdout) || (stdout.columns ?? 0) >= WIDE_COLUMNS;
      const rows = images.map((image) => [
        image.name,
        ...(hasDigests ? [{ value: image.digest, text: shorten(image.digest) }] : []),
        { value: image.platforms.join(','), text: fewPlatforms(image.platforms) },
        { value: String(image.size), text: humanSize(image.size) },
        { value: image.usedAt, text: ago(clock.now() - Date.parse(image.usedAt)) },
        { value: image.state, text: stateText(image) },
      ]);
      const digest = hasDigests ? ['DIGEST'] : [];
      writeTable(stdout, ['IMAGE', ...digest, 'PLATFORMS', 'SIZE', 'LAST USED', 'STATE'], rows);
    });

  withServerOptions(program.command('remove'))
    .description('remove tags or digests from the cache, with all content that no other image needs')
    .argument(
      '<image...>',
      'name of an image with its tag or digest, such as docker.io/library/alpine:3.20, or with --yes a pattern',
    )
    .option(
      '--this-node',
      'remove from this node of a fleet only; without it, from all nodes and from their store',
    )
    .option('--yes', 'remove all images that match a pattern; * matches any text')
    .action(async (given: string[], options: RemoveOptions) => {
      const client = await operationsClient(options, surroundings);
      const names = await namesOf(given, client, options.yes === true);
      const failed: string[] = [];
      for (const name of names) {
        try {
          const path = `/images/${name.split('/').map(encodeURIComponent).join('/')}`;
          const scope = options.thisNode === true ? '?scope=node' : '';
          const { objects, bytes, fleet } = (await client.json('DELETE', `${path}${scope}`)) as Removal;
          const freed = `${objects} objects and ${humanSize(bytes)} freed`;
          stdout.write(`${name}: removed, ${freed}${fleet === undefined ? '' : ` here${othersOf(fleet)}`}\n`);
        } catch (error) {
          failed.push(name);
          stderr.write(`${name}: ${error instanceof Error ? error.message : String(error)}\n`);
        }
      }
      if (failed.length > 0) throw new Error(`not removed: ${failed.join(', ')}`);
    });
}

/** What is said of the other nodes. One that is away follows when it is back. */
function othersOf({ nodes, withinSeconds }: NonNullable<Removal['fleet']>): string {
  if (nodes === 1) return '; no other node is there';
  const others =
    nodes === null
      ? 'the other nodes follow'
      : nodes === 2
        ? '1 other node follows'
        : `${nodes - 1} other nodes follow`;
  return `; ${others} within ${withinSeconds} s`;
}

/**
 * Replaces each pattern by the images that match it.
 *
 * @throws {Error} there is a pattern, and nobody has said yes: the message says what it would remove
 */
async function namesOf(given: readonly string[], client: OperationsClient, yes: boolean): Promise<string[]> {
  const names = new Set<string>();
  for (const name of given) {
    if (!name.includes('*')) {
      names.add(name);
      continue;
    }
    const matching: string[] = [];
    for await (const page of pages(client, { pattern: name }))
      matching.push(...page.map((image) => image.name));
    if (matching.length === 0) throw new Error(`no cached image matches ${name}: millpond list shows them`);
    if (!yes) {
      const many = matching.length === 1 ? '1 image' : `${matching.length} images`;
      throw new Error(
        `${name} would remove ${many}: look with millpond list '${name}', then add --yes; nothing was removed`,
      );
    }
    for (const each of matching) names.add(each);
  }
  return [...names];
}

async function* pages(client: OperationsClient, wanted: Record<string, string>): AsyncGenerator<Image[]> {
  for (let cursor: string | undefined; ; ) {
    const query = new URLSearchParams(cursor === undefined ? wanted : { ...wanted, cursor });
    const page = (await client.json('GET', `/images?${query.toString()}`)) as Page;
    yield page.images;
    if (page.next === undefined) return;
    cursor = page.next;
  }
}

function stateText({ state, size, stored, missing }: Image): string {
  if (state === 'list-only') return 'list only';
  const { blobs, of } = missing;
  return blobs === 0 ? state : `${of - blobs} of ${of}, ${humanSize(size - stored)} missing`;
}

/** An index of many platforms would leave no room for names. */
function fewPlatforms(platforms: readonly string[]): string {
  const [first = '', ...others] = platforms;
  return others.length === 0 ? first : `${first} +${others.length}`;
}

/** As docker shows image ids. */
function shorten(digest: string): string {
  const hex = digest.indexOf(':') + 1;
  return digest.slice(hex, hex + 12);
}
