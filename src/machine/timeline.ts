// The times at which a start reached each of its steps, on the host and in the guest, on one clock: milliseconds since
// the start was requested. The guest's figures are its own: the driver shows them but never relies on them.
import { printable } from "../system/error.ts";

export interface TimelineStep {
  readonly name: string;
  readonly atMs: number;
}

export interface GuestStep {
  readonly name: string;
  readonly uptimeMs: number;
}

const maxGuestSteps = 32;

export class BootTimeline {
  readonly #startedAtMs = performance.now();
  readonly #steps: TimelineStep[] = [];

  /** Notes that the step named is done. */
  done(name: string): void {
    this.#steps.push({ name, atMs: performance.now() - this.#startedAtMs });
  }

  /** The guest's steps, the last of which it reached just now. */
  addGuestSteps(steps: readonly GuestStep[]): void {
    const last = steps.at(-1);
    if (last === undefined) return;
    const kernelAtMs = performance.now() - this.#startedAtMs - last.uptimeMs;
    const bounded = steps.slice(0, maxGuestSteps);
    this.#steps.push(
      ...bounded.map(({ name, uptimeMs }) => ({
        name: `guest: ${printable(name, 40)}`,
        atMs: kernelAtMs + uptimeMs,
      })),
    );
  }

  /** In the order of time. */
  get steps(): readonly TimelineStep[] {
    return this.#steps.toSorted((a, b) => a.atMs - b.atMs);
  }
}
