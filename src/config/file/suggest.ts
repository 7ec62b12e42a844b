/** Did-you-mean for misspelt names. */

/** The candidate that is most like `name`; `undefined` if none is close. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const plainName = plain(name);
  // Allows a third of the letters to be wrong. With more, unrelated words would match.
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

/** Makes `max_size`, `max-size` and `maxsize` equal to `maxSize`. */
function plain(name: string): string {
  return name.replace(/[-_]/g, '').toLowerCase();
}

/**
 * How many letters must be inserted, removed, replaced or swapped with the next one to turn `a` into `b`: the
 * Damerau-Levenshtein distance in its form of optimal string alignment.
 */
function editDistance(a: string, b: string): number {
  // Holds in rows[i][j] the distance from the first i letters of a to the first j letters of b.
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number) => rows[i]?.[j] ?? Number.POSITIVE_INFINITY;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : replaced;
      row.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, replaced, swapped));
    }
  }
  return at(a.length, b.length);
}
