// Figures formatted for people.

export interface Step {
  readonly name: string;
  readonly atMs: number;
}

/** The lower of the two middle values, so that it is a measured one. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN;
}

const width = 50;

/** One line a step: the time of its end, its duration, a bar from the step before. */
export function formatWaterfall(steps: readonly Step[]): string {
  const total = Math.max(...steps.map((step) => step.atMs), 1);
  const column = (ms: number): number => Math.round((Math.max(ms, 0) / total) * width);
  const lines = steps.map((step, index) => {
    const from = steps[index - 1]?.atMs ?? 0;
    const bar = " ".repeat(column(from)) + "#".repeat(Math.max(column(step.atMs) - column(from), 1));
    return `${step.atMs.toFixed(0).padStart(7)} ms ${`+${(step.atMs - from).toFixed(0)}`.padStart(6)}  ${step.name.padEnd(34)} ${bar}`;
  });
  return lines.join("\n");
}
