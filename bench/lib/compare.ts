/** Two checkouts of Millpond side by side: how much worse the one is, and how far the other one differs from itself. */
import { number, type Samples, summarise } from './report.ts';
import type { Scenario } from './scenario.ts';

/** A ratio of 1.05 that is beyond the spread is worse; what is less cannot be told from noise. */
const TOLERANCE = 1.05;

/** Of these more is better; of all others less is. */
const RATES: ReadonlySet<string> = new Set(['requestsPerSecond', 'MiBps', 'evictionsPerSecond']);

export interface ComparedFigure {
  scenario: string;
  metric: string;
  /** Medians. */
  here: number;
  other: number;
  /** Of this checkout to the other one: the median of the turns. */
  ratio: number;
  /** Of the other checkout to itself: what the machine makes of two equal servers. */
  spread: { median: number; min: number; max: number };
  /** `noisy`: worse than allowed, but no worse than two equal servers were in one of the turns. */
  verdict: 'worse' | 'noisy' | 'holds';
}

/** @param samples of `this`, `other` and `again`, from the same turns */
export function compare(
  { name, shows }: Scenario,
  { this: here = [], other = [], again = [] }: Samples,
): ComparedFigure[] {
  return shows.map((metric) => {
    const valuesOf = (runs: typeof other) => runs.map((run) => run[metric] ?? Number.NaN);
    const [ours, theirs, repeated] = [valuesOf(here), valuesOf(other), valuesOf(again)];
    const ratio = summarise(ratios(ours, theirs)).median;
    const spread = summarise(ratios(repeated, theirs));
    const harm = (value: number) => (RATES.has(metric) ? 1 / value : value);
    const usual = Math.max(1, harm(spread.min), harm(spread.max));
    return {
      scenario: name,
      metric,
      here: summarise(ours).median,
      other: summarise(theirs).median,
      ratio,
      spread,
      verdict: harm(ratio) > TOLERANCE * usual ? 'worse' : harm(ratio) > TOLERANCE ? 'noisy' : 'holds',
    };
  });
}

function ratios(values: readonly number[], others: readonly number[]): number[] {
  return values.map((value, turn) => {
    const other = others[turn] ?? Number.NaN;
    return value === other ? 1 : value / other; // nothing of both, too
  });
}

export function renderComparison(figures: readonly ComparedFigure[]): string {
  const rows = figures.map(({ scenario, metric, here, other, ratio, spread, verdict }, at) => [
    figures[at - 1]?.scenario === scenario ? '' : scenario,
    metric,
    number(here),
    number(other),
    ratio.toFixed(2),
    `${spread.median.toFixed(2)} (${spread.min.toFixed(2)}–${spread.max.toFixed(2)})`,
    { worse: '**worse**', noisy: '*noisy*', holds: '' }[verdict],
  ]);
  const head = ['scenario', 'figure', 'this', 'other', 'this / other', 'other / itself', ''];
  const cells = [head, head.map(() => '---'), ...rows];
  return cells.map((row) => `| ${row.join(' | ')} |\n`).join('');
}
