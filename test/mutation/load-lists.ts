import { globSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Mutation } from './mutation.ts';

export interface ListedMutation extends Mutation {
  /** The name of the list's file: `upstream`. */
  area: string;
}

/** The mutations of every file in `lists/`; each array that such a file exports is a list. */
export async function loadLists(): Promise<ListedMutation[]> {
  const files = globSync(join(import.meta.dirname, 'lists/*.ts')).toSorted();
  const lists = await Promise.all(
    files.map(async (file) => {
      const exported = (await import(pathToFileURL(file).href)) as Record<string, readonly Mutation[]>;
      const area = basename(file, '.ts');
      return Object.values(exported).flatMap((list) => list.map((mutation) => ({ area, ...mutation })));
    }),
  );
  return lists.flat();
}
