/** Medians, tables, and whether the targets hold. */
import type { PeerName, Server } from './peers.ts';
import type { Sample, Scenario, Target } from './scenario.ts';

interface Figure {
  median: number;
  min: number;
  max: number;
  runs: number;
}

type Figures = Partial<Record<PeerName, Record<string, Figure>>>;

/** The runs of each server, in order. */
export type Samples = Partial<Record<Server['name'], Sample[]>>;

interface Verdict {
  target: string;
  /** The ratio, or the metric itself; undefined where it could not be measured. */
  value: number | undefined;
  holds: boolean | undefined;
}

export interface Report {
  scenario: string;
  does: string;
  figures: Figures;
  verdicts: Verdict[];
}

export function report(scenario: Scenario, samples: Samples): Report {
  const figures: Figures = {};
  for (const [peer, runs] of Object.entries(samples) as [PeerName, Sample[]][]) {
    const metrics = Object.keys(runs[0] ?? {});
    figures[peer] = Object.fromEntries(
      metrics.map((metric) => [metric, summarise(runs.map((run) => run[metric] ?? Number.NaN))]),
    );
  }
  const verdicts = scenario.targets.map((target) => judge(target, figures));
  return { scenario: scenario.name, does: scenario.does, figures, verdicts };
}

export function summarise(values: readonly number[]): Figure {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const at = (index: number) => sorted[index] ?? Number.NaN;
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    min: at(0),
    max: at(sorted.length - 1),
    runs: sorted.length,
  };
}

function judge({ of = 'millpond', metric, relation, limit }: Target, figures: Figures): Verdict {
  const own = figures[of]?.[metric]?.median;
  const against = 'of' in limit ? figures[limit.of]?.[metric]?.median : 1;
  const bound = 'of' in limit ? limit.factor : limit.value;
  const target = `${of === 'millpond' ? '' : `${of}: `}${metric} ${relation} ${'of' in limit ? `${bound} × ${limit.of}` : bound}`;
  const value = (own ?? Number.NaN) / (against ?? Number.NaN);
  if (Number.isNaN(value)) return { target, value: undefined, holds: undefined };
  return { target, value, holds: relation === '≤' ? value <= bound : value >= bound };
}

/** @param judged false: sizes are too small for the targets to mean anything */
export function renderReport(scenario: Scenario, { figures, verdicts }: Report, judged: boolean): string {
  const rows = Object.entries(figures).map(([peer, metrics]) => [
    peer,
    ...scenario.shows.map((metric) => renderFigure(metrics[metric])),
  ]);
  const lines = [`\n${scenario.name}: ${scenario.does}`, table([['', ...scenario.shows], ...rows])];
  for (const { target, value, holds } of judged ? verdicts : []) {
    const verdict = holds === undefined ? 'not measured' : holds ? 'holds' : 'MISSED';
    lines.push(`  ${verdict.padEnd(12)} ${target}${value === undefined ? '' : `: ${number(value)}`}`);
  }
  return `${lines.join('\n')}\n`;
}

function renderFigure(figure: Figure | undefined): string {
  if (figure === undefined) return '-';
  const { median, min, max } = figure;
  return min === max ? number(median) : `${number(median)} (${number(min)}–${number(max)})`;
}

export function number(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 100
    ? value.toFixed(0)
    : size >= 10
      ? value.toFixed(1)
      : size >= 0.1
        ? value.toFixed(2)
        : value.toFixed(3);
}

function table(rows: readonly string[][]): string {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  return rows
    .map((row) => `  ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('  ')}`.trimEnd())
    .join('\n');
}
