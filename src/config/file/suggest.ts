/** Did-you-mean for misspelt keys. */

/** The one of `candidates` that `name` most likely stands for; `undefined` if none is near. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const plainName = plain(name);
  // A third of the letters may be wrong: more than that makes other words of it.
  let best = {
    distance: Math.max(1, Math.floor(plainName.length / 3)) + 1,
    candidate: undefined as string | undefined,
  };
  for (const candidate of candidates) {
    const distance = editDistance(plainName, plain(candidate));
    if (distance < best.distance) best = { distance, candidate };
  }
  return best.candidate;
}

/** `max_size`, `max-size` and `maxsize` all mean `maxSize`. */
function plain(name: string): string {
  return name.replace(/[-_]/g, '').toLowerCase();
}

/** How many letters must be put in, taken out, exchanged or swapped with the next to make `b` of `a`. */
function editDistance(a: string, b: string): number {
  // rows[i][j] is the distance from the first i letters of a to the first j of b.
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number) => rows[i]?.[j] ?? Number.POSITIVE_INFINITY;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const exchanged = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : exchanged;
      row.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, exchanged, swapped));
    }
  }
  return at(a.length, b.length);
}
