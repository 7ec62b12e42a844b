/** `millpond list` and `millpond remove`. */
import type { Command } from 'commander';
import { OperationsClient } from '../io/operations-client.ts';
import { type ServerOptions, withServerOptions } from '../io/options.ts';
import { humanSize, table } from '../io/output.ts';
import type { Surroundings } from '../io/surroundings.ts';

interface Image {
  name: string;
  digest: string;
  platforms: string[];
  size: number;
  usedAt: string;
}

interface Page {
  images: Image[];
  next?: string;
}

interface Removal {
  objects: number;
  bytes: number;
}

export function addImageCommands(program: Command, surroundings: Surroundings): void {
  const { stdout, stderr } = surroundings;
  withServerOptions(program.command('list'))
    .description('list cached images')
    .argument('[pattern]', 'list only images whose name matches; * matches any text', '*')
    .option('--json', 'print JSON')
    .action(async (pattern: string, options: ServerOptions & { json?: true }) => {
      const images: Image[] = [];
      for await (const page of pages(new OperationsClient(options, surroundings), pattern))
        images.push(...page);
      if (options.json) {
        stdout.write(`${JSON.stringify(images, undefined, 2)}\n`);
        return;
      }
      const rows = images.map(({ name, digest, platforms, size, usedAt }) => [
        name,
        shorten(digest),
        platforms.join(','),
        humanSize(size),
        usedAt,
      ]);
      stdout.write(table([['IMAGE', 'DIGEST', 'PLATFORMS', 'SIZE', 'LAST USED'], ...rows]));
    });

  withServerOptions(program.command('remove'))
    .description('remove tags or digests from the cache, with all content that no other image needs')
    .argument('<image...>', 'name of an image with its tag or digest, such as docker.io/library/alpine:3.20')
    .action(async (names: string[], options: ServerOptions) => {
      const client = new OperationsClient(options, surroundings);
      const failed: string[] = [];
      for (const name of names) {
        try {
          const { objects, bytes } = (await client.json(
            'DELETE',
            `/images/${name.split('/').map(encodeURIComponent).join('/')}`,
          )) as Removal;
          stdout.write(`${name}: removed, ${objects} objects and ${humanSize(bytes)} freed\n`);
        } catch (error) {
          failed.push(name);
          stderr.write(`${name}: ${error instanceof Error ? error.message : String(error)}\n`);
        }
      }
      if (failed.length > 0) throw new Error(`not removed: ${failed.join(', ')}`);
    });
}

async function* pages(client: OperationsClient, pattern: string): AsyncGenerator<Image[]> {
  for (let cursor: string | undefined; ; ) {
    const query = new URLSearchParams(cursor === undefined ? { pattern } : { pattern, cursor });
    const page = (await client.json('GET', `/images?${query.toString()}`)) as Page;
    yield page.images;
    if (page.next === undefined) return;
    cursor = page.next;
  }
}

function shorten(digest: string): string {
  return digest.slice(0, digest.indexOf(':') + 13);
}
